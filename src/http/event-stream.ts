/**
 * Server-sent events (HTML Living Standard, "Server-sent events"). Frames are pulled: a slow reader slows the
 * model, and nothing is made that nobody reads.
 */
export const dataFrame = (data: unknown): string =>
  `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
/** A frame that names its event, which readers may tell apart without parsing it. */
export const eventFrame = <T extends { readonly type: string }>(event: T): string =>
  `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
/** A comment: clients ignore it, people and auditors read it. */
export const commentFrame = (comment: string): string => `: ${comment}\n\n`;

/**
 * @param frames text of whole frames; must not throw: what goes wrong is a frame, too
 * @param onGone the reader has left before the end
 */
export function eventStream(
  frames: AsyncGenerator<string>,
  onGone: () => void,
  headers: Record<string, string>,
): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await frames.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    cancel() {
      onGone();
      // Not awaited: a generator that is waiting for the model returns when the model has stopped.
      void frames.return(undefined).catch(() => {});
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream; charset=utf-8", ...headers } });
}
