"""How time and memory of tunesmith grow with rows, length, labels and parameters: growth.json, and plots for the docs.

Each point is a process of its own, on one thread, in CPU seconds; the first step warms up. How to run it:
benchmarks/README.md. What it gave: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import encoder
import harness
import linear
import measure
import numpy as np
import sft
import torch
import transformers
from torch import nn

from tunesmith.data.batches import MicroBatches, Sampler
from tunesmith.data.encode import Encoded, EncodedText
from tunesmith.hardware import peak_memory_mb, versions
from tunesmith.models import onednn_linear, packing, pretrained
from tunesmith.models.linear import Regression
from tunesmith.models.vectorizer import vectorize
from tunesmith.prediction.classify import layout_of
from tunesmith.recipe import Linear, Model
from tunesmith.training import causal, losses
from tunesmith.types import Example

RESULT = Path(__file__).parent / "growth.json"
DOCS = Path(__file__).parents[1] / "docs"
TOKENS = 2048
"""Of a step, where the length of the texts or the number of labels changes."""
LLAMAS = {
    23: (320, 10, 5, 5, 864),
    52: (512, 12, 8, 4, 1408),
    125: (576, 30, 9, 3, 1536),
    345: (960, 32, 15, 5, 2560),
    1039: (2048, 16, 32, 8, 8192),
}
"""Millions of parameters -> hidden size, layers, heads, heads of keys and values, size between. The last three have
the layers of SmolLM2-135M, SmolLM2-360M and Llama 3.2 1B; the vocabulary is 32,000 in all."""


@dataclass
class Steps:
    """What `harness.our_steps` needs of a task."""

    loss: Any


def llama(millions: int) -> nn.Module:
    """A causal model with random weights."""
    hidden, layers, heads, kv_heads, between = LLAMAS[millions]
    config = transformers.LlamaConfig(
        vocab_size=32_000,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=between,
        max_position_embeddings=TOKENS,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model


def bert(labels: int) -> nn.Module:
    """A classifier of MiniLM's size with random weights, for up to TOKENS tokens."""
    config = transformers.BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=TOKENS,
        num_labels=labels,
    )
    torch.manual_seed(0)
    model: nn.Module = transformers.BertForSequenceClassification(config)
    return model


def tokens(rows: int, length: int) -> list[list[int]]:
    ids = np.random.Generator(np.random.PCG64(0)).integers(1000, 30_000, (rows, length))
    return [[int(token) for token in row] for row in ids]


def packed(length: int, count: int) -> tuple[list[EncodedText], causal.PackedTexts]:
    return [EncodedText(str(i), ids, ids) for i, ids in enumerate(tokens(count, length))], causal.PackedTexts()


def timed(model: nn.Module, feed: Any, loss: Any) -> float:
    """Return the median seconds of a step of the training loop, after one that warms up."""
    args = argparse.Namespace(learning_rate=1e-4)
    run, seconds = harness.our_steps(Steps(loss), model, feed, args, 1 + STEPS), []  # type: ignore[arg-type]
    for _ in range(1 + STEPS):
        start = measure.clock()
        next(run)
        seconds.append(measure.clock() - start)
    return statistics.median(seconds[1:])


STEPS = 2
"""Measured ones of a point."""


# --- points: a size -> seconds ---------------------------------------------------------------------------------------


def rows_of(kind: type[harness.Task], batch: int, **named: Any) -> Callable[[int], float]:
    """An epoch on real texts, without its first step but as if that took as long as the others."""

    def seconds(rows: int) -> float:
        settings = {"batch": batch, "rows": rows, "steps": rows // batch - 1, "rounds": 1, "side": "ours"}
        args = argparse.Namespace(**settings, max_tokens=None, learning_rate=1e-4, **named)
        found = harness.alone(kind(args), args)
        return found["seconds"] / found["examples"] * rows

    return seconds


def linear_rows(rows: int) -> float:
    return fitted(linear.read(Path(os.environ["BENCH_AG_NEWS_TRAIN"]), rows), Linear())


def fitted(examples: Sequence[Example], settings: Linear) -> float:
    """Seconds of the vectorizer and the regression that the linear method takes for this number of labels."""
    names = {label: i for i, label in enumerate(sorted({str(example.label) for example in examples}))}
    start = measure.clock()
    features = vectorize(examples, settings).features
    Regression.fit(features, [names[str(example.label)] for example in examples], settings, np.ones(len(names)))
    return measure.clock() - start


def linear_labels(labels: int) -> float:
    """10,000 texts of twelve words out of 5,000, three of them from the five of their label."""
    random = np.random.Generator(np.random.PCG64(0))
    words = random.integers(0, 5000, (10_000, 12))
    gold = np.arange(10_000) % labels
    own = random.integers(0, 5000, (labels, 5))
    words[:, :3] = own[gold[:, None], random.integers(0, 5, (10_000, 3))]
    texts = [" ".join(f"w{word}" for word in row) for row in words]
    examples = [Example(str(i), text, label=str(gold[i])) for i, text in enumerate(texts)]
    return fitted(examples, Linear(word_ngrams=(1, 1)))


def encoder_of(length: int, labels: int) -> float:
    settings = Model(name_or_path=encoder.MODEL)
    tokenizer, model, count = pretrained.tokenizer(settings), bert(labels), TOKENS // length
    layout, reason = layout_of(model, tokenizer)
    if reason:
        raise RuntimeError(f"the encoder has to be padded: {reason}")
    rows = [Encoded(str(i), {"input_ids": ids}, i % labels) for i, ids in enumerate(tokens(count, length))]
    feed = MicroBatches(rows, Sampler(count, count, seed=0), layout, 1024)
    return timed(model, feed, losses.Classification(torch.ones(labels)))


def encoder_length(length: int) -> float:
    return encoder_of(length, 2)


def encoder_labels(labels: int) -> float:
    return encoder_of(64, labels)


def generator_length(length: int) -> float:
    model, count = llama(52), TOKENS // length
    rows, layout = packed(length, count)
    if reason := packing.set_up(model, [row.ids for row in rows], [row.labels for row in rows]):
        raise RuntimeError(f"packing cannot be used: {reason}")
    feed = MicroBatches(rows, Sampler(count, count, seed=0), layout, 1024)
    return timed(model, feed, causal.PackedCausal())


def generator_parameters(millions: int) -> float:
    """Forward and backward of one row of 512 tokens, without the optimizer, which doubles the memory."""
    model = llama(millions).train()
    rows, layout = packed(512, 1)
    loss, seconds = causal.PackedCausal(), []
    if reason := packing.set_up(model, [row.ids for row in rows], [row.labels for row in rows]):
        raise RuntimeError(f"packing cannot be used: {reason}")
    for _ in range(2):  # the first warms up
        start = measure.clock()
        with onednn_linear.enabled():
            torch.autograd.backward(loss.total(model, layout.collate(rows)))
        seconds.append(measure.clock() - start)
        model.zero_grad(set_to_none=True)
    return seconds[1]


# --- axes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """What grows. series: what is measured, by name: sizes, and the function of a size that returns seconds."""

    title: str
    series: Mapping[str, tuple[Sequence[int], Callable[[int], float]]]
    seconds: str
    proportional: bool = False
    """Whether the time should be in proportion to the size; else it should stay as it is."""


LENGTHS = (64, 128, 256, 512, 1024, 2048)
LABELS = (2, 10, 100, 1_000, 10_000)


def axes() -> dict[str, Axis]:
    path = {name: Path(os.environ.get(name, "")) for name in ("BENCH_INSTRUCTIONS", "BENCH_AG_NEWS_TRAIN")}
    texts = {"train": path["BENCH_AG_NEWS_TRAIN"], "test": path["BENCH_AG_NEWS_TRAIN"], "test_rows": 0}
    classes = rows_of(encoder.Classes, 32, model=encoder.MODEL, max_length=128, **texts)
    generator = {"data": path["BENCH_INSTRUCTIONS"], "model": sft.MODEL, "method": "full", "held_out": 64}
    instructions = rows_of(sft.Instructions, 8, **generator)
    return {
        "rows": Axis(
            "Training rows",
            {
                "encoder": ((96, 192, 384, 768), classes),
                "generator": ((24, 48, 96, 192), instructions),
                "linear": ((1250, 2500, 5000, 10_000), linear_rows),
            },
            "CPU seconds of an epoch; linear: of the fit",
            proportional=True,
        ),
        "length": Axis(
            "Tokens of a text",
            {"encoder": (LENGTHS, encoder_length), "generator": (LENGTHS, generator_length)},
            f"CPU seconds of a step of {TOKENS:,} tokens",
        ),
        "labels": Axis(
            "Labels",
            {"encoder": (LABELS, encoder_labels), "linear": (LABELS, linear_labels)},
            "CPU seconds: encoder a step, linear the fit",
        ),
        "parameters": Axis(
            "Parameters, millions",
            {"generator": (tuple(LLAMAS), generator_parameters)},
            "CPU seconds of forward and backward, 512 tokens",
            proportional=True,
        ),
    }


def point(function: Callable[[int], float], size: int) -> dict[str, float]:
    """Seconds and peak memory of one size, in a forked process: the libraries are imported once, by the parent."""

    def run(end: Any) -> None:
        torch.set_num_threads(1)
        seconds = function(size)
        end.send({"size": size, "seconds": round(seconds, 4), "peak_mb": round(peak_memory_mb())})

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(theirs,))
    process.start()
    theirs.close()
    try:
        return dict(ours.recv())
    except EOFError:
        process.join()
        sys.exit(f"error: the process of size {size:,} ended with exit code {process.exitcode} (-9: out of memory)")


def draw(name: str, axis: Axis, found: Mapping[str, Sequence[Mapping[str, float]]], folder: Path) -> Path:
    """Write one SVG file: seconds and peak memory over the size, all axes logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9})
    figure, panels = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for panel, key, label in zip(panels, ("seconds", "peak_mb"), (axis.seconds, "Peak memory, MB"), strict=True):
        for place, (series, points) in enumerate(found.items()):
            sizes, values = [p["size"] for p in points], [p[key] for p in points]
            panel.plot(sizes, values, "o-", color=f"C{place}", markersize=4, label=series)
            if key == "seconds":
                ideal = [values[0] * (size / sizes[0] if axis.proportional else 1) for size in sizes]
                panel.plot(sizes, ideal, ":", color=f"C{place}", linewidth=1)
        panel.set(xscale="log", yscale="log", xlabel=axis.title, title=label)
        panel.grid(alpha=0.3)
        low, high = panel.get_ylim()
        panel.set_ylim(min(low, high / 12), high)  # at least a decade, so that noise does not look like growth
    panels[0].legend()
    path = folder / f"growth-{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    table = axes()
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"what grows: {', '.join(table)}; all by default")
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON file; axes that are not measured stay in it")
    parser.add_argument("--plots", type=Path, default=DOCS, help="folder of the SVG files")
    parser.add_argument("--draw", action="store_true", help="draw what the JSON file holds, and measure nothing")
    args = parser.parse_args()
    if unknown := [name for name in args.axes if name not in table]:
        parser.error(f"no axis {unknown[0]!r}; expected some of {', '.join(table)}")
    needs_data = not args.draw and "rows" in (args.axes or table)
    if needs_data and (missing := [n for n in ("BENCH_INSTRUCTIONS", "BENCH_AG_NEWS_TRAIN") if n not in os.environ]):
        parser.error(f"rows needs {missing[0]}; benchmarks/README.md says where to get the file")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measure.clock = measure.CLOCKS["cpu"]
    for name in args.axes or table:
        if not args.draw:
            found: dict[str, list[dict[str, float]]] = {series: [] for series in table[name].series}
            for series, (sizes, function) in table[name].series.items():
                for size in sizes:
                    found[series].append(point(function, size))
                    print(name, series, found[series][-1], file=sys.stderr, flush=True)
            about = {"versions": versions(harness.PACKAGES), "instruction set": torch.backends.cpu.get_cpu_capability()}
            content = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
            args.output.write_text(json.dumps({**content, name: {**about, "series": found}}, indent=1) + "\n")
        found = json.loads(args.output.read_text(encoding="utf-8"))[name]["series"]
        print(draw(name, table[name], found, args.plots))


if __name__ == "__main__":
    main()
