"""Byte-level byte-pair encoding (Sennrich et al. 2016), learned from the rows that are not held out.

It writes the tokenizer.json that Hugging Face's `tokenizers` reads, with the merges that its trainer finds: the most
frequent pair first, of equal ones the pair with the smaller ids.
"""

import heapq
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).parent
VOCABULARY = 2048
LEAST_COUNT = 2
SPECIAL = [f"<|{name}|>" for name in ("pad", "bos", "end", "system", "user", "assistant", "tool", "reserved0")]

# As the file says it, and the same for texts of ASCII, which is all there is to learn from.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PIECE = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def byte_characters():
    """The printable character that stands for each byte (GPT-2): itself, or one above U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    characters, following = [], 256
    for byte in range(256):
        characters.append(chr(byte) if byte in printable else chr(following))
        following += byte not in printable
    return characters


BYTES = byte_characters()


def pieces(text):
    if not text.isascii():
        raise ValueError(f"only ASCII is learned from: {text!r}")
    return ["".join(BYTES[byte] for byte in piece.encode()) for piece in PIECE.findall(text)]


def corpus(rows):
    intents = sorted({row["intent"] for row in rows["labels"]})
    categories = sorted({row["category"] for row in rows["labels"]})
    answers = [row["answer"] for row in rows["answers"]]
    return answers + [row["question"] for row in rows["labels"]] + intents * 5 + categories * 5


def train(texts):
    """@returns (vocabulary: token → id, merges in the order of their rank)"""
    tokens = SPECIAL + sorted(BYTES)
    ids = {token: index for index, token in enumerate(tokens)}
    words = Counter(piece for text in texts for piece in pieces(text))
    spelled = [[ids[character] for character in word] for word in words]
    counts = list(words.values())
    pairs, where = Counter(), defaultdict(set)
    for index, word in enumerate(spelled):
        for pair in zip(word, word[1:]):
            pairs[pair] += counts[index]
            where[pair].add(index)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(queue)
    merges = []
    while queue and len(tokens) < VOCABULARY:
        negative, pair = heapq.heappop(queue)
        if -negative != pairs[pair]:
            if pairs[pair] > 0:
                heapq.heappush(queue, (-pairs[pair], pair))
            continue
        if pairs[pair] < LEAST_COUNT:
            break
        left, right = tokens[pair[0]], tokens[pair[1]]
        merges.append([left, right])
        ids[left + right] = len(tokens)
        tokens.append(left + right)
        for changed in merge(pair, ids[left + right], spelled, counts, pairs, where):
            heapq.heappush(queue, (-pairs[changed], changed))
    return ids, merges


def merge(pair, token, spelled, counts, pairs, where):
    """Joins a pair everywhere. @returns pairs that became more frequent"""
    grown = set()
    for index in where.pop(pair):
        old = spelled[index]
        new, at = [], 0
        while at < len(old):
            is_pair = at + 1 < len(old) and (old[at], old[at + 1]) == pair
            new.append(token if is_pair else old[at])
            at += 2 if is_pair else 1
        for gone in zip(old, old[1:]):
            pairs[gone] -= counts[index]
        for come in zip(new, new[1:]):
            pairs[come] += counts[index]
            where[come].add(index)
            if token in come:
                grown.add(come)
        spelled[index] = new
    return grown


class Tokenizer:
    def __init__(self, ids, merges):
        self.ids = ids
        self.tokens = {index: token for token, index in ids.items()}
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
        self.known = {}
        self.bytes = {character: byte for byte, character in enumerate(BYTES)}

    @classmethod
    def load(cls, path):
        model = json.loads(Path(path).read_text())["model"]
        return cls(model["vocab"], [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]])

    def encode(self, text):
        return [token for piece in pieces(text) for token in self.encode_piece(piece)]

    def encode_piece(self, piece):
        if piece not in self.known:
            parts = list(piece)
            while len(parts) > 1:
                ranked = [(self.ranks.get(pair, len(self.ranks)), at) for at, pair in enumerate(zip(parts, parts[1:]))]
                rank, at = min(ranked)
                if rank == len(self.ranks):
                    break
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            self.known[piece] = [self.ids[part] for part in parts]
        return self.known[piece]

    def decode(self, ids):
        text = "".join(self.tokens[index] for index in ids if index >= len(SPECIAL))
        return bytes(self.bytes[character] for character in text).decode(errors="replace")


def file_of(ids, merges):
    special = [
        {
            **{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False},
            **{"normalized": False, "special": True},
        }
        for index, token in enumerate(SPECIAL)
    ]
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        **{"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            **{"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None},
            **{"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False},
            **{"vocab": ids, "merges": merges},
        },
    }


if __name__ == "__main__":
    rows = json.loads((HERE / "out" / "rows.json").read_text())
    vocabulary, found = train(corpus(rows))
    made = file_of(vocabulary, found)
    (HERE / "out" / "tokenizer.json").write_text(json.dumps(made, ensure_ascii=False, indent=2))
    shipped = json.loads((HERE.parent / "weights" / "tokenizer.json").read_text())
    print(f"{len(vocabulary)} tokens, {len(found)} merges; the shipped tokenizer is the same: {made == shipped}")
