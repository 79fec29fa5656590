/** How many of each thing a request may have; `docs/limits.md` lists them. The contract's where it states one. */
export const MAX_ITEMS = 10_000; // messages of a chat, items of a response
export const MAX_PARTS = 2_048; // of one message
export const MAX_CALLS = 128; // of functions, in one message
export const MAX_TOOLS = 128;
export const MAX_STOPS = 4;
export const MAX_BIASES = 1_024;
export const MAX_CHOICES = 16;
export const MAX_LABELS = 16; // of what is stored
export const MAX_EMBEDDED = 2_048; // texts
export const MAX_TOKEN_IDS = 8_192; // of one text
export const MAX_JUDGED = 128; // texts or parts of one
export const MAX_CLASSIFIED = 128; // texts
export const MAX_CLASSES = 100;
/** Of what nobody here reads: annotations and log probabilities that a reply had. */
export const MAX_UNREAD = 10_000;
