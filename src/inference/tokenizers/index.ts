import { Tokenizers } from "../../core/tokens/tokenizers";
import cl100k from "./cl100k.bin";
import llama3Extension from "./llama3-extension.bin";
import o200k from "./o200k.bin";

/** The vocabularies that come with the platform. */
export const tokenizers = new Tokenizers({ cl100k, o200k, llama3Extension });
