"""Instruction tuning side by side with TRL's SFTTrainer: the same weights, examples, order and settings.

How to run it: benchmarks/README.md. What it gave: docs/benchmarks.md.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import harness
import numpy as np
import torch
from measure import Load, Work
from torch import nn

from tunesmith.data.batches import MicroBatches, Sampler
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.models import packing, pretrained
from tunesmith.recipe import Model
from tunesmith.training import causal

MODEL = "pypi:smollm2-135m-instruct"
PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}"
)
RATES = {"full": 5e-5, "lora": 2e-4}
PEERS: dict[str, dict[str, Any]] = {
    "padded": {},
    "compact": {},
    "checkpointed": {"gradient_checkpointing": True},
    "padding_free": {"padding_free": True, "max_length": None},
    "packing": {"packing": True, "per_device_train_batch_size": 1},
}
"""Ways to run TRL. `padded` is its default but for gradient checkpointing, which `checkpointed` leaves on; `compact` is
what it does on GPUs, where its head runs only at learned places."""
SAME_BATCHES = ("padded", "compact", "checkpointed")


class Instructions(harness.Task):
    """Alpaca's template; the response and the end token are learned."""

    peer_name = "TRL"

    def __init__(self, args: Any) -> None:
        args.learning_rate = args.learning_rate or RATES[args.method]
        self.args = args
        settings = Model(name_or_path=args.model)
        self.tokenizer = pretrained.tokenizer(settings)
        texts = read(args.data)
        rows = encode(texts, self.tokenizer)
        cut = len(rows) - args.held_out
        self.texts, self.rows, self.held_out = texts[:cut][: args.rows], rows[:cut][: args.rows], rows[cut:]
        self.model = adapted(pretrained.causal_lm(settings, self.tokenizer, seed=0).module, args.method)
        self.loss = causal.PackedCausal()
        if reason := packing.set_up(self.model, [r.ids for r in self.rows], [r.labels for r in self.rows]):
            raise RuntimeError(f"packing cannot be used: {reason}")

    def feed(self, max_tokens: int | None) -> MicroBatches[EncodedText, causal.PackedBatch]:
        sampler = Sampler(len(self.rows), self.args.batch, seed=0)
        return MicroBatches(self.rows, sampler, causal.PackedTexts(), max_tokens or 1024)

    def work(self, feed: MicroBatches[EncodedText, causal.PackedBatch], step: int) -> Work:
        lengths = [len(feed.rows[i]) for i in feed.sampler.draw(step)]
        rows = [batch.row for batch in feed(step)]
        sizes = [row.ids.shape[1] for row in rows]
        return Work(
            len(lengths),
            needed(lengths, sum(len(row.target_ids) for row in rows)),
            Load(sum(sizes), sum(size**2 for size in sizes), sum(len(row.target_places) for row in rows)),
        )

    def head(self) -> Collection[nn.Module]:
        return [packing.head(self.model)]

    def peer(self, model: nn.Module, folder: str) -> Any:
        from datasets import Dataset, disable_progress_bars
        from trl import SFTConfig, SFTTrainer
        from trl.trainer import utils

        disable_progress_bars()
        compact = self.args.peer == "compact"
        if compact:  # asked only whether the head may leave places out; the kernels have a switch of their own
            utils._use_triton = lambda device: True

        def work(inputs: dict[str, torch.Tensor]) -> Work:
            return their_work(inputs, compact)

        chosen = {**harness.peer_arguments(self.args, folder), **PEERS[self.args.peer]}
        if self.args.peer == "packing":
            chosen["max_length"] = self.args.pack_length or 64 * self.args.batch
        return harness.noting(
            SFTTrainer,
            work,
            model=model,
            args=SFTConfig(**chosen),
            train_dataset=Dataset.from_list(harness.in_order(self.texts, self.args)),
            processing_class=self.tokenizer,
        )

    def check(self, peer: Any) -> None:
        """The first batch holds the same tokens, and the same of them are learned."""
        if self.args.peer not in SAME_BATCHES:
            return
        rows = harness.in_order(self.rows, self.args)[: self.args.batch]
        first = next(iter(peer.get_train_dataloader()))
        columns = (first[name].tolist() for name in ("input_ids", "labels", "attention_mask"))
        for row, ids, labels, mask in zip(rows, *columns, strict=True):
            size = sum(mask)
            if ids[:size] != row.ids or labels[:size] != row.labels or set(labels[size:]) - {IGNORE}:
                raise AssertionError(f"row {row.id} differs between the two sides")

    @torch.no_grad()
    def scores(self, model: nn.Module) -> dict[str, Any]:
        """Mean loss over the learned tokens of the held-out rows; one at a time, the model's plain forward."""
        model.eval()
        loss, count = 0.0, 0
        for row in self.held_out:
            logits_LV = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, :-1]
            labels_L = torch.tensor(row.labels[1:])
            loss += float(nn.functional.cross_entropy(logits_LV, labels_L, ignore_index=IGNORE, reduction="sum"))
            count += int((labels_L != IGNORE).sum())
        return {"held-out loss": f"{loss / count:.4f}"} if count else {}


def needed(lengths: Sequence[int], learned: int) -> Load:
    """Each token attends to itself and those before it."""
    return Load(sum(lengths), sum(n * (n + 1) // 2 for n in lengths), learned)


def their_work(inputs: dict[str, torch.Tensor], compact: bool) -> Work:
    """Work on a padded batch, or on one row of examples that each begin at position 0."""
    ids = inputs["input_ids"]
    if "attention_mask" in inputs:
        lengths = inputs["attention_mask"].sum(1).tolist()
    else:
        starts = torch.nonzero(inputs["position_ids"][0] == 0)[:, 0].tolist()
        lengths = np.diff([*starts, ids.numel()]).tolist()
    learned = int((inputs["labels"][:, 1:] != IGNORE).sum())
    done = Load(ids.numel(), len(ids) * ids.shape[1] ** 2, learned if compact else ids.numel())
    return Work(len(lengths), needed(lengths, learned), done)


def read(file: Path) -> list[dict[str, str]]:
    """Prompt and completion of each row, shuffled once."""
    rows = []
    for row in json.loads(file.read_text(encoding="utf-8")):
        prompt = PREAMBLE.format(instruction=row["instruction"])
        prompt += f"\n\n### Input:\n{row['input']}" if row["input"] else ""
        rows.append({"prompt": prompt + "\n\n### Response:\n", "completion": row["output"]})
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(rows))
    return [rows[i] for i in order]


def encode(rows: Sequence[dict[str, str]], tokenizer: Any) -> list[EncodedText]:
    """Prompt and response as one text, the end token behind it; what follows the prompt is learned."""
    encoded = []
    for number, row in enumerate(rows):
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]
        if ids[: len(prompt)] != prompt:
            raise ValueError(f"row {number}: the prompt's tokens change when the response follows")
        encoded.append(EncodedText(str(number), ids, [IGNORE] * len(prompt) + ids[len(prompt) :]))
    return encoded


def adapted(model: nn.Module, method: str) -> nn.Module:
    if method == "full":
        return model
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return cast(nn.Module, peft.get_peft_model(model, config))


def main() -> None:
    parser = harness.options(__doc__, steps=2, rounds=12, batch=8)
    harness.add_path(parser, "--data", "BENCH_INSTRUCTIONS", "a JSON list of instruction, input and output")
    parser.add_argument("--model", default=MODEL, help=f"folder or name of a causal language model ({MODEL})")
    parser.add_argument("--method", choices=RATES, default="full")
    parser.add_argument("--peer", choices=PEERS, default="padded", help="how TRL lays out its batches")
    parser.add_argument("--pack-length", type=int, help="tokens of a packed row of TRL; 64 an example if not given")
    parser.add_argument("--held-out", type=int, default=64, help="rows kept for the held-out loss")
    harness.main(Instructions, parser)


if __name__ == "__main__":
    main()
