"""Trains the base: 3,299 steps of 6 × 512 tokens, about 40 minutes to an hour on one processor thread.

Tokens of conversations follow each other without gaps, and every token is learned, the customer's too.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from torch.nn import functional as F

import weights
from conversations import END, Conversations
from model import Model
from tokenizer import Tokenizer

HERE = Path(__file__).parent
STEPS = 3_299
BATCH = 6
PEAK_RATE = 2.5e-3
WARM_UP_STEPS = 150
DECAY_FROM = 0.5  # of the steps; linear from there
LEAST_SHARE = 0.02
STEPS_PER_VALIDATION = 200
VALIDATION_ROWS = 120


def learning_rate(step):
    """@param step 0 for the first"""
    done = step / STEPS
    decay = 1 if done <= DECAY_FROM else max(LEAST_SHARE, (1 - done) / (1 - DECAY_FROM))
    return PEAK_RATE * min(1, (step + 1) / WARM_UP_STEPS) * decay


def batches(conversations, context, seed):
    """@yields (tokens, the tokens after them), each (batch, context), and the number of the epoch"""
    shuffler, tokens, epoch = random.Random(seed), [], 0
    while True:
        rows = []
        while len(rows) < BATCH:
            while len(tokens) <= context:
                tokens += [token for conversation in conversations.epoch(shuffler) for token in conversation]
                epoch += 1
            rows.append(tokens[: context + 1])
            tokens = tokens[context:]
        both = torch.tensor(rows)
        yield both[:, :-1], both[:, 1:], epoch


@torch.no_grad()
def held_out_loss(model, conversations, rows):
    """Nats a token of the answers."""
    loss = count = 0
    for row in rows:
        prompt = conversations.prompt(row["question"])
        tokens = torch.tensor([[*prompt, *conversations.encode(row["answer"]), END][: model.config.context]])
        logits = model(tokens[:, :-1])[0][0, len(prompt) - 1 :]
        loss += F.cross_entropy(logits, tokens[0, len(prompt) :], reduction="sum").item()
        count += tokens.shape[1] - len(prompt)
    return loss / count


def optimiser(model):
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    norms = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0}]
    return torch.optim.AdamW(groups, PEAK_RATE, betas=(0.9, 0.95))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--stop-after", type=int, default=STEPS, help="steps; a short run has the same schedule")
    stop_after = arguments.parse_args().stop_after
    torch.set_num_threads(1)  # the order of sums, and with it the bits, depends on it
    torch.manual_seed(1)
    rows = json.loads((HERE / "out" / "rows.json").read_text())
    small_talk = json.loads((HERE / "data" / "small-talk.json").read_text())
    conversations = Conversations(rows, small_talk, Tokenizer.load(HERE / "out" / "tokenizer.json"))
    held_out = [row for row in rows["held_out_answers"] if "[" not in row["answer"]]
    model = Model()
    adam = optimiser(model)
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters", flush=True)
    log, losses, start = [], [], time.monotonic()
    for step, (tokens, following, epoch) in enumerate(batches(conversations, model.config.context, seed=3)):
        if step == stop_after:
            break
        for group in adam.param_groups:
            group["lr"] = learning_rate(step)
        logits, _ = model(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), following.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == stop_after:
            entry = {"step": step + 1, "epoch": epoch, "loss": round(sum(losses) / len(losses), 4)}
            if (step + 1) % STEPS_PER_VALIDATION == 0 or step + 1 == stop_after:
                entry["held_out"] = round(held_out_loss(model, conversations, held_out[:VALIDATION_ROWS]), 4)
            entry["seconds"] = round(time.monotonic() - start)
            log.append(entry)
            losses.clear()
            print(entry, flush=True)
            weights.write(HERE / "out" / "model.fp32.safetensors", model.state_dict(), "F32")
    weights.write(HERE / "out" / "model.fp16.safetensors", model.state_dict(), "F16")
    (HERE / "out" / "log.json").write_text(json.dumps(log, indent=1))


if __name__ == "__main__":
    main()
