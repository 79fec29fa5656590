"""Rows to learn from and rows held out, out of the two files of Bitext's data set.

The newer file has long answers, the older one has more phrasings of the same intents. Answers come from the newer
alone; questions to classify from both. A tenth of all questions is held out, from answers and from labels.
"""

import csv
import gzip
import json
import random
import re
from pathlib import Path

HERE = Path(__file__).parent
NEWER = HERE / "data" / "bitext-8b6ca3d.csv.gz"
OLDER = HERE / "data" / "bitext-a6d3265.csv.gz"

SPLIT_SEED = 7
HELD_OUT_SHARE = 10  # one of so many
ANSWER_CHARACTERS = range(60, 1301)

OFFENSIVE = re.compile(r"bloody|damn|fuck|shit|hell\b|goddam|bastard|freaking", re.IGNORECASE)
NUMBER = re.compile(r"#?\d[\d-]{3,}")
SQUARE_PLACEHOLDER = re.compile(r"\[((?:Customer |Support |Website |Live |Phone |Company |Email )[A-Za-z ]*)\]")
PLACEHOLDER = re.compile(r"\{\{\s*([^}]*?)\s*\}\}")

# What a placeholder becomes: the first rule whose words it has, in this order.
CONTAINS, IS = "contains", "is"
NUMBERS = {"order number", "order id", "purchase id", "purchase number", "invoice number", "bill number"}
EMAILS = {"customer support email", "support email", "contact email"}
SITES = {
    *("company website", "website or app", "our website", "platform", "platform name", "app", "website/app"),
    *("website name", "website"),
}
RULES = [
    (CONTAINS, ["anonymized"], None),  # None: the number that the question names
    (IS, NUMBERS, None),
    (CONTAINS, ["phone"], "1-800-555-0199"),
    (CONTAINS, ["email address"], "support@example.com"),
    (IS, EMAILS, "support@example.com"),
    (CONTAINS, ["availab", "hours"], "24/7"),
    (IS, {"live chat", "live-chat", "chat"}, "live chat"),
    (CONTAINS, ["website url"], "www.example.com"),
    (IS, {"website link", "company website url", "url"}, "www.example.com"),
    (IS, SITES, "website"),
    (CONTAINS, ["company name", "store name"], "our company"),
    (IS, {"company"}, "our company"),
    (IS, {"name", "customer name", "user name", "first name"}, "there"),
]
PLAIN = {"’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\r": ""}


def read(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def filled(placeholder, number):
    """What stands in the place of a placeholder; an unknown one becomes its own words."""
    name = placeholder.lower()
    for how, words, text in RULES:
        if any(word in name for word in words) if how == CONTAINS else name in words:
            return (number or "your order") if text is None else text
    return placeholder


def answer_of(row):
    found = NUMBER.search(row["instruction"])
    number = found.group(0) if found else ""
    text = SQUARE_PLACEHOLDER.sub(r"{{\1}}", row["response"])
    text = PLACEHOLDER.sub(lambda match: filled(match.group(1), number), text)
    text = re.sub(r"\bwebsite,? website\b", "website", text)
    text = re.sub(r"\bour our\b", "our", text)
    for character, plain in PLAIN.items():
        text = text.replace(character, plain)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def question_of(row):
    return re.sub(r"\s+", " ", row["instruction"]).strip()


def labels_of(row):
    return {
        "question": question_of(row),
        "intent": row["intent"],
        "category": row["category"],
        "entity": row["entity_type"],
        "value": row["entity_value"],
    }


def is_usable(answer):
    return "{{" not in answer and len(answer) in ANSWER_CHARACTERS and all(ord(character) <= 126 for character in answer)


def answered(rows):
    """Questions with answers, each question once; rows that Bitext marks as offensive (W) are left out."""
    seen = set()
    for row in rows:
        if "W" in row["tags"] or OFFENSIVE.search(row["instruction"]) or OFFENSIVE.search(row["response"]):
            continue
        answer, question = answer_of(row), question_of(row)
        if is_usable(answer) and question.lower() not in seen:
            seen.add(question.lower())
            yield {**labels_of(row), "answer": answer}


def prepare():
    newer, older = read(NEWER), read(OLDER)
    labelled = {question_of(row).lower(): labels_of(row) for row in newer + older if not OFFENSIVE.search(row["instruction"])}
    keys = sorted(labelled)
    random.Random(SPLIT_SEED).shuffle(keys)
    held_out = set(keys[: len(keys) // HELD_OUT_SHARE])
    answers = list(answered(newer))
    is_held_out = lambda row: row["question"].lower() in held_out
    return {
        "answers": [row for row in answers if not is_held_out(row)],
        "held_out_answers": [row for row in answers if is_held_out(row)],
        "labels": [labelled[key] for key in keys if key not in held_out],
        "held_out_labels": [labelled[key] for key in keys if key in held_out],
    }


if __name__ == "__main__":
    rows = prepare()
    target = HERE / "out" / "rows.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows))
    for name, part in rows.items():
        print(f"{name}: {len(part)}")
