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

/** Nothing is silent for longer: proxies on the way cut connections on which nothing moves, often after 60 s. */
export const PING_MS = 15_000;
/** A failure that comes sooner is still an ordinary error reply with its own status. */
export const HEADERS_MS = 1_000;

/** Settles when `first` has, or after {@link HEADERS_MS}, whichever is sooner. @throws what `first` throws by then */
export async function firstOrSoon(first: Promise<unknown>): Promise<void> {
  const soon = Promise.withResolvers<void>();
  const timer = setTimeout(soon.resolve, HEADERS_MS);
  try {
    await Promise.race([first, soon.promise]);
  } finally {
    clearTimeout(timer);
    first.catch(() => {}); // who reads the frames meets it
  }
}

/**
 * A comment goes out wherever the next frame takes longer than {@link PING_MS}, unless nobody reads what is there.
 * @param frames text of whole frames; must not throw: what goes wrong is a frame, too
 * @param onGone the reader has left before the end
 */
export function eventStream(
  frames: AsyncGenerator<string>,
  onGone: () => void,
  headers: Record<string, string>,
): Response {
  const encoder = new TextEncoder();
  let timer: ReturnType<typeof setInterval> | undefined;
  let hasLeft = false;
  let isFirst = true;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const ping = () => {
        if ((controller.desiredSize ?? 0) > 0) controller.enqueue(encoder.encode(commentFrame("ping")));
      };
      timer = setInterval(ping, PING_MS);
      // Where nothing is there yet, the headers go out with a comment: some runtimes keep them for the first byte.
      const opening = isFirst ? setTimeout(ping, 0) : undefined;
      isFirst = false;
      try {
        const { done, value } = await frames.next();
        if (hasLeft) return;
        if (done) controller.close();
        else controller.enqueue(encoder.encode(value));
      } finally {
        clearInterval(timer);
        clearTimeout(opening);
      }
    },
    cancel() {
      hasLeft = true;
      clearInterval(timer);
      onGone();
      // Not awaited: a generator that is waiting for the model returns when the model has stopped.
      void frames.return(undefined).catch(() => {});
    },
  });
  return new Response(body, { headers: { "content-type": "text/event-stream; charset=utf-8", ...headers } });
}
