"""The numbers of MODEL.md: what a model does with the rows that it never saw.

By default the weights that are shipped; `--weights out/model.fp16.safetensors` takes those of a new training.
"""

import argparse
import json
import random
from pathlib import Path

import torch

import weights
from conversations import CATEGORY_PROMPTS, END, INTENT_PROMPTS, JSON_PROMPTS, Conversations, extraction
from model import Model
from prepare import prepare
from tokenizer import Tokenizer
from train import VALIDATION_ROWS, held_out_loss

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "weights"
JSON_ROWS = 200


@torch.no_grad()
def answer(model, prompt, most):
    """The likeliest token, one after another. @returns tokens without the end"""
    made, tokens, past = [], torch.tensor([prompt]), None
    while len(made) < most:
        logits, past = model(tokens, past)
        token = int(logits[0, -1].argmax())
        if token == END:
            break
        made.append(token)
        tokens = torch.tensor([[token]])
    return made


def is_json(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--weights", type=Path, default=SHIPPED / "model.fp16.safetensors.bin")
    chosen = arguments.parse_args().weights
    torch.set_num_threads(1)
    rows = prepare()
    tokenizer = Tokenizer.load(SHIPPED / "tokenizer.json")
    conversations = Conversations(rows, json.loads((HERE / "data" / "small-talk.json").read_text()), tokenizer)
    model = Model()
    model.load_state_dict(weights.read(chosen))
    say = lambda question, system=None, most=14: tokenizer.decode(answer(model, conversations.prompt(question, system), most))

    answers = [row for row in rows["held_out_answers"] if "[" not in row["answer"]]
    first = held_out_loss(model, conversations, answers[:VALIDATION_ROWS])
    print(f"loss of held-out answers: {first:.3f} of the first {VALIDATION_ROWS}, ", end="")
    print(f"{held_out_loss(model, conversations, answers):.3f} of all {len(answers)} (nats a token)", flush=True)
    labels = rows["held_out_labels"]
    for key, prompts in (("intent", INTENT_PROMPTS), ("category", CATEGORY_PROMPTS)):
        right = sum(say(row["question"], prompts[0]) == row[key] for row in labels)
        print(f"{key}: {right} of {len(labels)} ({100 * right / len(labels):.1f} %)", flush=True)
    texts = [(row, say(row["question"], JSON_PROMPTS[0], 70)) for row in labels[:JSON_ROWS]]
    valid = sum(is_json(text) for _, text in texts)
    exact = sum(text == extraction(row, row["question"]) for row, text in texts)
    print(f"JSON of {JSON_ROWS}: {100 * valid / JSON_ROWS:.0f} % valid, {100 * exact / JSON_ROWS:.0f} % exact", flush=True)
    numbers = ["".join(random.Random(seed).choices("0123456789", k=6)) for seed in range(40)]
    copied = sum(number in say(f"I want to cancel order {number}", most=220) for number in numbers)
    print(f"order numbers copied: {copied} of {len(numbers)}")


if __name__ == "__main__":
    main()
