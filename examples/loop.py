"""The training loop of tunesmith with nothing hidden: fine-tune an encoder on a CSV file of texts and labels.

    python examples/loop.py reviews.csv path/to/model

The package does the same in `training/loop.py`, with checkpoints, several processes and other losses; a test checks
that both have the same losses. Note:

- the examples of a step depend only on (seed, epoch, step), its dropout on (seed, step);
- a step's examples are sorted by length and cut into micro-batches, so that there is little padding;
- the loss of a micro-batch is a sum, divided once by the step's count, so that micro-batches change no result.
"""

from __future__ import annotations

import csv
import math
import sys

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

SEED, EPOCHS, STEP_SIZE, MAX_LENGTH, MAX_TOKENS = 42, 1, 16, 128, 1024
LEARNING_RATE, WARMUP, WEIGHT_DECAY, MAX_NORM = 5e-5, 0.1, 0.01, 1.0


def examples_of(step: int, number: int) -> list[int]:
    """Return the rows of a step: a new order each epoch, every row once."""
    epoch, position = divmod(step, math.ceil(number / STEP_SIZE))
    order = np.random.Generator(np.random.PCG64([SEED, epoch])).permutation(number)
    return [int(i) for i in order[position * STEP_SIZE : (position + 1) * STEP_SIZE]]


def micro_batches(rows: list[int], lengths: list[int]) -> list[list[int]]:
    """Return groups of rows, longest first, of at most MAX_TOKENS when padded to the longest row."""
    groups: list[list[int]] = []
    for row in sorted(rows, key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= MAX_TOKENS:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate: linear warm-up, then linear decay to zero."""
    warmup = math.ceil(WARMUP * steps)
    factor = step / warmup if step < warmup else 1 - (step - warmup) / max(1, steps - warmup)
    return LEARNING_RATE * factor


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW with weight decay for matrices only, not for biases and norms."""
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and "bias" not in name]
    plain = [p for name, p in model.named_parameters() if not (p.ndim > 1 and "bias" not in name)]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)


def train(texts: list[str], labels: list[str], path: str) -> list[float]:
    """Return the loss of every step."""
    names = sorted(set(labels))
    gold = torch.tensor([names.index(label) for label in labels])
    tokenizer = AutoTokenizer.from_pretrained(path)
    torch.manual_seed(SEED)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(names))
    encoded = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, return_attention_mask=False)
    rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    lengths = [len(row["input_ids"]) for row in rows]
    optimizer = optimizer_of(model)
    steps = EPOCHS * math.ceil(len(rows) / STEP_SIZE)
    losses = []
    model.train()
    for step in range(steps):
        torch.manual_seed(int(np.random.SeedSequence([SEED, step + 1, 0]).generate_state(1, np.uint64)[0]))
        drawn = examples_of(step, len(rows))
        total = 0.0
        for group in micro_batches(drawn, lengths):
            batch = tokenizer.pad([rows[i] for i in group], return_tensors="pt")
            loss = nn.functional.cross_entropy(model(**batch).logits, gold[group], reduction="sum")
            (loss / len(drawn)).backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / len(drawn))
    return losses


if __name__ == "__main__":
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for number, loss in enumerate(train([r["text"] for r in table], [r["label"] for r in table], sys.argv[2]), 1):
        print(f"step {number:4}  loss {loss:.4f}")
