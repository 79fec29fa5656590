"""What the model reads while it learns: conversations made of the rows, another mixture in each epoch."""

import json
import re

BOS, END, SYSTEM, USER, ASSISTANT = 1, 2, 3, 4, 5

ANSWER_PROMPTS = [
    "You are a helpful customer support assistant.",
    "You are a customer service agent for an online store.",
    "You are a support agent. Answer the customer's question clearly and politely.",
    "You are a friendly assistant for our company. Help the customer.",
    "Answer as a customer support agent.",
    "You are an AI assistant that helps customers with orders, payments and accounts.",
]
INTENT_PROMPTS = [
    "Classify the customer message. Answer with the intent name only.",
    "Classify the intent of the message.",
    "What is the intent of this message? Reply with one intent label.",
    "You are an intent classifier. Output only the intent.",
    "Detect the intent of the user's message and answer with its name.",
]
CATEGORY_PROMPTS = [
    "Classify the customer message. Answer with the category name only.",
    "Classify the category of the message.",
    "You are a ticket router. Output only the category.",
    "Which category does this ticket belong to? Reply with one category label.",
]
JSON_PROMPTS = [
    "Extract the intent and the entities. Reply in JSON.",
    "Reply with JSON only: intent, category and entities.",
    "Analyze the message and return a JSON object.",
]

NUMBER = re.compile(r"\d[\d-]{3,}\d")
NUMBER_LENGTHS = [4, 5, 6, 7, 8, 9, 10, 12]
SMALL_TALK_REPEATS = 12


def another_number(question, answer, random):
    """Most numbers become others of any length, in question and answer alike."""
    for number in sorted(set(NUMBER.findall(question))):
        if random.random() < 0.8:
            length = random.choice(NUMBER_LENGTHS)
            other = "".join(random.choice("0123456789") for _ in range(length))
            question, answer = question.replace(number, other), answer.replace(number, other)
    return question, answer


def as_typed(question, random):
    """A quarter begins with a capital, some end with a mark: the rows are lower case and have none."""
    if random.random() < 0.25:
        question = question[:1].upper() + question[1:]
    if random.random() < 0.15 and question[-1:].isalnum():
        question += random.choice([".", "?", "!"])
    return question


def extraction(row, question):
    """The answer in JSON: intent, category, and the entity as the question has it."""
    found = {"intent": row["intent"], "category": row["category"]}
    numbers = NUMBER.findall(question)
    if row["entity"] in ("order_id", "invoice_id") and numbers:
        found[row["entity"]] = numbers[0]
    elif row["entity"] and row["value"] and row["value"] in question:
        found[row["entity"]] = row["value"]
    return json.dumps(found)


class Conversations:
    def __init__(self, rows, small_talk, tokenizer):
        # A bracket is a placeholder that no rule knew.
        self.answers = [row for row in rows["answers"] if "[" not in row["answer"]]
        self.labels = rows["labels"]
        self.small_talk = [{"question": question, "answer": answer} for question, answer in small_talk]
        self.encode = tokenizer.encode

    def turn(self, role, text):
        return [role, *self.encode(text), END]

    def prompt(self, question, system=None):
        before = self.turn(SYSTEM, system) if system else []
        return [BOS, *before, *self.turn(USER, question), ASSISTANT]

    def answered(self, rows, random):
        tokens = [BOS]
        if random.random() < 0.4:
            tokens += self.turn(SYSTEM, random.choice(ANSWER_PROMPTS))
        for row in rows:
            question, answer = another_number(row["question"], row["answer"], random)
            tokens += self.turn(USER, as_typed(question, random)) + self.turn(ASSISTANT, answer)
        return tokens

    def labelled(self, row, random):
        kind = random.random()
        question, _ = another_number(row["question"], "", random)
        question = as_typed(question, random)
        if kind < 0.55:
            system, label = random.choice(INTENT_PROMPTS), row["intent"]
        elif kind < 0.75:
            system, label = random.choice(CATEGORY_PROMPTS), row["category"]
        else:
            system, label = random.choice(JSON_PROMPTS), extraction(row, question)
        return [*self.prompt(question, system), *self.encode(label), END]

    def epoch(self, random):
        """All rows once, in conversations of one or two answers, and each piece of small talk a dozen times."""
        made = []
        answers = self.answers[:]
        random.shuffle(answers)
        at = 0
        while at < len(answers):
            count = 2 if random.random() < 0.2 else 1
            rows = answers[at : at + count]
            at += count
            if random.random() < 0.06:
                rows = [random.choice(self.small_talk), *rows]
            made.append(self.answered(rows, random))
        made += [self.labelled(row, random) for row in self.labels]
        made += [self.answered([row], random) for _ in range(SMALL_TALK_REPEATS) for row in self.small_talk]
        random.shuffle(made)
        return made
