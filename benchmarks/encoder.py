"""A fine-tuned encoder side by side with transformers' Trainer: the same weights, examples, order and settings.

How to run it: benchmarks/README.md. What it gave: docs/benchmarks.md.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Collection
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from measure import Load, Work, summed
from torch import nn

from tunesmith.data import batches
from tunesmith.data.encode import Encoded, encode
from tunesmith.evaluation.intervals import wilson
from tunesmith.models import pretrained
from tunesmith.prediction.classify import layout_of
from tunesmith.recipe import Model
from tunesmith.tasks.classification import SingleLabel
from tunesmith.training import losses
from tunesmith.types import Example

MODEL = "pypi:all-minilm-l6-v2"
PEERS: dict[str, dict[str, Any]] = {
    "padded": {},
    "grouped": {"train_sampling_strategy": "group_by_length"},
}
"""How Trainer draws: our order, each batch padded to its longest row; or its own order, similar lengths together."""


class Classes(harness.Task):
    """Texts and their classes; the head is drawn once, and copied with the rest."""

    peer_name = "Trainer"

    def __init__(self, args: Any) -> None:
        settings = Model(name_or_path=args.model, max_length=args.max_length)
        train, test = read(args.train, args.rows), read(args.test, args.test_rows)
        target = SingleLabel(tuple(sorted({str(row.label) for row in train})))
        self.args = args
        self.tokenizer = pretrained.tokenizer(settings)
        self.rows, _ = encode(train, self.tokenizer, args.max_length, target)
        self.test, _ = encode(test, self.tokenizer, args.max_length, target)
        self.model = pretrained.sequence_classifier(settings, self.tokenizer, target, seed=0).module
        self.loss = losses.Classification(torch.ones(len(target.labels)))

    def feed(self, max_tokens: int | None) -> batches.MicroBatches[Encoded, batches.Batch]:
        budget = batches.token_budget(max_tokens or "auto", torch.device("cpu"))
        sampler = batches.Sampler(len(self.rows), self.args.batch, seed=0)
        return batches.MicroBatches(self.rows, sampler, layout_of(self.model, self.tokenizer)[0], budget)

    def work(self, feed: batches.MicroBatches[Encoded, batches.Batch], step: int) -> Work:
        return summed([unpadded(b.lengths) if b.lengths else padded(b.inputs) for b in feed(step)])

    def head(self) -> Collection[nn.Module]:
        return [module for name, module in self.model.named_modules() if name.endswith(("pooler", "classifier"))]

    def peer(self, model: nn.Module, folder: str) -> Any:
        from datasets import Dataset
        from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

        rows = self.rows if self.args.peer == "grouped" else harness.in_order(self.rows, self.args)
        return harness.noting(
            Trainer,
            padded,
            model=model,
            args=TrainingArguments(**{**harness.peer_arguments(self.args, folder), **PEERS[self.args.peer]}),
            train_dataset=Dataset.from_list([{**row.inputs, "labels": row.label} for row in rows]),
            data_collator=DataCollatorWithPadding(self.tokenizer),
        )

    def check(self, peer: Any) -> None:
        """The first batch holds the same rows and labels."""
        if self.args.peer == "grouped":
            return
        rows = harness.in_order(self.rows, self.args)[: self.args.batch]
        ours, first = batches.collate(rows, self.tokenizer), next(iter(peer.get_train_dataloader()))
        if not all(
            torch.equal(first[name], tensor) for name, tensor in (*ours.inputs.items(), ("labels", ours.labels))
        ):
            raise AssertionError("the first batch differs between the two sides")

    @torch.no_grad()
    def scores(self, model: nn.Module) -> dict[str, Any]:
        model.eval()
        hits, count = 0, len(self.test)
        for group in batches.plan([len(row) for row in self.test], 2048):
            batch = batches.collate([self.test[i] for i in group], self.tokenizer)
            hits += int((model(**batch.inputs).logits.argmax(-1) == batch.labels).sum())
        if not count:
            return {}
        low, high = wilson(hits, count, 0.95)
        return {f"accuracy on {count:,} rows": f"{hits / count:.3f} [{low:.3f}, {high:.3f}]"}


def unpadded(lengths: tuple[int, ...]) -> Work:
    """Examples one behind the other, attention in each alone: nothing is done that is not needed."""
    needed = Load(sum(lengths), sum(length**2 for length in lengths), len(lengths))
    return Work(len(lengths), needed, needed)


def padded(inputs: dict[str, torch.Tensor]) -> Work:
    """A padded batch: every token of an example attends to every other."""
    mask = inputs["attention_mask"]
    size, longest = mask.shape
    lengths = mask.sum(1)
    needed = Load(int(lengths.sum()), int((lengths**2).sum()), size)
    return Work(size, needed, Load(mask.numel(), size * longest**2, size))


def read(file: Path, limit: int | None) -> list[Example]:
    """Rows drawn once from a CSV with `text` and `label`, or from AG News as published: class, title, description."""
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    if "text" in head:
        text, label = head.index("text"), head.index("label")
        pairs = [(row[text], row[label]) for row in rows]
    else:
        pairs = [(" ".join(row[1:]), row[0]) for row in (head, *rows)]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(pairs))[:limit]
    return [Example(f"{file.name}:{i + 1}", pairs[i][0], label=pairs[i][1]) for i in order]


def main() -> None:
    parser = harness.options(__doc__, steps=5, rounds=10, batch=32)
    parser.set_defaults(learning_rate=1e-4)
    harness.add_path(parser, "--train", "BENCH_AG_NEWS_TRAIN", "AG News for training, a CSV")
    harness.add_path(parser, "--test", "BENCH_AG_NEWS_TEST", "AG News for testing, a CSV")
    parser.add_argument("--model", default=MODEL, help=f"folder or name of an encoder ({MODEL})")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text at most")
    parser.add_argument("--test-rows", type=int, default=1000, help="0 leaves accuracy out")
    parser.add_argument("--peer", choices=PEERS, default="padded", help="how Trainer draws its batches")
    harness.main(Classes, parser)


if __name__ == "__main__":
    main()
