import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type FinishReason, ProviderError } from "../../../src/inference/provider";
import { endingOf } from "../../../src/inference/providers/finish-reasons";

/** Either how it ended, or the failure that it was. */
function ended(reason: unknown): FinishReason | string | undefined {
  try {
    return endingOf(reason);
  } catch (error) {
    if (error instanceof ProviderError) return `failed: ${error.failure}`;
    throw error;
  }
}

describe("how a server says that an answer ended", () => {
  it.each([
    ["stop", ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE", "FinishReason.STOP"]],
    ["length", ["length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "maxTokens", "max-tokens"]],
    ["length", ["model_context_window_exceeded", "ERROR_LIMIT", "max_new_tokens"]],
    ["tool_calls", ["tool_calls", "function_call", "tool_use", "TOOL_CALL"]],
    [
      "content_filter",
      ["content_filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "refusal"],
    ],
    ["content_filter", ["guardrail_intervened", "sensitive", "ERROR_TOXIC", "content_filtered", "IMAGE_SAFETY"]],
    [
      "failed: broken",
      ["abort", "aborted", "cancelled", "error", "ERROR", "OTHER", "MALFORMED_FUNCTION_CALL", "pause_turn"],
    ],
    [
      "failed: broken",
      ["network_error", "USER_CANCEL", "UNEXPECTED_TOOL_CALL", "something new", "constructor", "__proto__"],
    ],
    ["failed: broken", [7, true, {}, { type: 7 }, []]],
    ["failed: capacity", ["insufficient_system_resource", "load", "overloaded"]],
    ["failed: timeout", ["timeout", "time_limit"]],
  ])("is %s for %j", (expected, reasons) => {
    for (const reason of reasons) expect([reason, ended(reason)]).toEqual([reason, expected]);
  });

  it("is nothing yet for what stands in chunks before the end", () => {
    for (const reason of [undefined, null, "", "null", "None", false]) expect(ended(reason)).toBeUndefined();
  });

  it("is found in an object, too", () => {
    expect([ended({ type: "stop" }), ended({ reason: "eos_token" })]).toEqual(["stop", "stop"]);
  });

  it("is an error in words that nobody knows, never a whole answer", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 6 }), (noise) => {
        expect(ended(`zz${noise}`)).toBe("failed: broken");
      }),
    );
  });
});
