/** The names under which the embedded model is called. */
export const TEXT_MODEL = "@local/tiny-support-lm";
export const EMBEDDING_MODEL = "@local/tiny-support-lm-embed";
export const CLASSIFICATION_MODEL = "@local/tiny-support-lm-classify";
