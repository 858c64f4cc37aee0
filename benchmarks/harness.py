"""What the benchmarks share: two sides in turns in one process, their work counted, memory and growth measured apart.

A script gives a `Task`; `main` runs what its arguments ask for. The rules of the comparison: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import measure
import torch
import transformers
from accelerate import Accelerator
from measure import Block, Round, Work, compare, costs, machine_rate, rates, spread, summed
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from tunesmith.data.batches import Sampler
from tunesmith.errors import TunesmithError
from tunesmith.hardware import peak_memory_mb, versions
from tunesmith.models import onednn_linear
from tunesmith.recipe import Train
from tunesmith.training import loop

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")
GROWTH = (1, 2, 4, 8)


# --- what a script gives ---------------------------------------------------------------------------------------------


class Task(ABC):
    """Data, model and the two ways to train it."""

    peer_name: str
    rows: Sequence[Any]
    model: nn.Module
    """Both sides start from copies of it."""
    loss: Any

    @abstractmethod
    def __init__(self, args: Any) -> None: ...

    @abstractmethod
    def feed(self, max_tokens: int | None) -> Any:
        """Our micro-batches by step."""

    @abstractmethod
    def work(self, feed: Any, step: int) -> Work: ...

    @abstractmethod
    def head(self) -> Collection[nn.Module]: ...

    @abstractmethod
    def peer(self, model: nn.Module, folder: str) -> Any:
        """Their trainer, made by `noting`."""

    @abstractmethod
    def check(self, peer: Any) -> None:
        """Raises where the two sides would not learn the same."""

    @abstractmethod
    def scores(self, model: nn.Module) -> dict[str, Any]:
        """What the model has learned, by name; computed in the same way for both."""


def total(args: Any) -> int:
    """Steps of a run: one warms up."""
    return int(1 + args.rounds * args.steps)


def in_order(rows: Sequence[Any], args: Any) -> list[Any]:
    """What our sampler draws, as one list: the other side reads it from front to back."""
    sampler = Sampler(len(rows), args.batch, seed=0)
    return [rows[i] for step in range(total(args)) for i in sampler.draw(step)]


def our_steps(task: Task, model: nn.Module, feed: Any, args: Any, steps: int) -> Iterator[loop.Step]:
    train = Train(
        learning_rate=args.learning_rate,
        max_steps=steps,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
    )
    plan, accelerator = loop.TrainingPlan(steps, None, "", False, None), Accelerator(cpu=True)
    state = loop.begin(model, train, plan, accelerator)
    found = loop.steps(state, feed, task.loss, train, accelerator, plan, dict)
    while True:
        with onednn_linear.enabled():  # as `tunesmith train` does; not while the other side has its turn
            step = next(found, None)
        if step is None:
            return
        yield step


def peer_arguments(args: Any, folder: str) -> dict[str, Any]:
    """The same for transformers' Trainer, which does nothing here but train."""
    return {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "seed": 0,
        "per_device_train_batch_size": args.batch,
        "max_steps": total(args),
        "learning_rate": args.learning_rate,
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


def noting(kind: type, work: Callable[[dict[str, torch.Tensor]], Work], **named: Any) -> Any:
    """A trainer of that kind which also notes each step's work and loss."""

    class Noting(kind):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *more: Any, **named: Any) -> torch.Tensor:
            self.work.append(work(inputs))
            loss: torch.Tensor = super().training_step(model, inputs, *more, **named)
            self.losses.append(float(loss))
            return loss

    made = Noting(**named)
    made.remove_callback(PrinterCallback)
    made.work, made.losses = [], []
    return made


# --- side by side ----------------------------------------------------------------------------------------------------


class Turns(TrainerCallback):  # type: ignore[misc]
    """Runs a block of ours before each block of theirs, inside their `train()`: nothing is set up twice."""

    def __init__(self, ours: Callable[[int], Block], theirs: Sequence[Work], sizes: Sequence[int]) -> None:
        self.ours, self.theirs = ours, theirs
        self.ends = dict(zip(accumulate(sizes), sizes, strict=True))
        self.sizes = iter(sizes)
        self.rounds: list[Round] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if (size := self.ends.get(state.global_step)) is None:
            return
        theirs = Block(measure.clock() - self.start, size, summed(self.theirs[-size:]))
        self.rounds.append(Round(self.machine, self.block, theirs))
        each = [f"{block.seconds / block.steps:.2f}" for block in (self.block, theirs)]
        name = f"round {len(self.rounds) - 1}" if len(self.rounds) > 1 else "warm-up"
        print(f"{name}: {each[0]} s a step, theirs {each[1]}", file=sys.stderr, flush=True)
        self._begin()

    def _begin(self) -> None:
        if size := next(self.sizes, None):
            self.machine = machine_rate()
            self.block = self.ours(size)
            self.start = measure.clock()


def side_by_side(task: Task, args: Any) -> dict[str, Any]:
    ours, theirs = task.model, copy.deepcopy(task.model)
    before, price, feed = task.scores(ours), costs(ours, task.head()), task.feed(args.max_tokens)
    run, losses = our_steps(task, ours, feed, args, total(args)), []

    def block(count: int) -> Block:
        start = measure.clock()
        done = [next(run).loss for _ in range(count)]
        seconds = measure.clock() - start
        losses.extend(done)
        steps = range(len(losses) - count, len(losses))
        return Block(seconds, count, summed([task.work(feed, step) for step in steps]))

    with tempfile.TemporaryDirectory() as folder:
        peer = task.peer(theirs, folder)
        task.check(peer)
        turns = Turns(block, peer.work, [1, *[args.steps] * args.rounds])
        peer.add_callback(turns)
        peer.train()
    kept = turns.rounds[1:]
    return {
        "ratio": compare(kept),
        "ours": {**rates([r.ours for r in kept], [r.machine for r in kept], price), **task.scores(ours)},
        "theirs": {**rates([r.theirs for r in kept], [r.machine for r in kept], price), **task.scores(theirs)},
        "before": before,
        "costs": asdict(price),
        "losses": {"ours": losses, "theirs": peer.losses},
        "rounds": [asdict(r) for r in turns.rounds],
    }


# --- apart: memory, growth, token budgets ----------------------------------------------------------------------------


def alone(task: Task, args: Any) -> dict[str, float]:
    """One side in this process: its peak memory, and of ours the time after the first step."""
    loaded, seconds = resident_mb(), 0.0
    if args.side == "ours":
        run = our_steps(task, task.model, task.feed(args.max_tokens), args, total(args))
        next(run)
        start = measure.clock()
        count = sum(1 for _ in run)
        seconds = measure.clock() - start
    else:
        count = total(args) - 1
        with tempfile.TemporaryDirectory() as folder:
            task.peer(task.model, folder).train()
    return {"peak": peak_memory_mb(), "loaded": loaded, "seconds": seconds, "examples": count * args.batch}


def resident_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


def child(*more: str) -> dict[str, Any]:
    """This benchmark again, in a process of its own; its last line of output is the answer."""
    done = subprocess.run([sys.executable, *sys.argv, *more], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


def memory() -> dict[str, Any]:
    return {side: child("--side", side, "--rounds", "1") for side in ("ours", "theirs")}


def growth(args: Any) -> dict[str, Any]:
    """An epoch of ours over 1, 2, 4 and 8 times so many rows, `--rounds` times there and back."""
    found: dict[str, list[Any]] = {str(factor * args.growth): [] for factor in GROWTH}
    for number in range(args.rounds):
        for rows in list(found)[:: -1 if number % 2 else 1]:
            steps = str(max(1, int(rows) // args.batch - 1))  # one more warms up
            found[rows].append(child("--side", "ours", "--rows", rows, "--steps", steps, "--rounds", "1"))
            one = found[rows][-1]
            print(f"{rows} rows: {one['seconds']:.1f} s, {one['peak']:.0f} MB", file=sys.stderr, flush=True)
    return found


@dataclass
class InTurn:
    """The same steps through several feeds, one after the other: what a token budget costs."""

    feeds: Sequence[Any]

    def __call__(self, step: int) -> Any:
        return self.feeds[step % len(self.feeds)](step // len(self.feeds))

    def halved(self) -> InTurn:
        return self


def budgets(task: Task, args: Any) -> dict[str, Any]:
    """Seconds of a step of ours in micro-batches of at most so many tokens; the first step of each warms up."""
    feed = InTurn([task.feed(budget) for budget in args.budgets])
    run = our_steps(task, task.model, feed, args, len(args.budgets) * (1 + args.steps))
    times: dict[str, list[float]] = {str(budget): [] for budget in args.budgets}
    for _ in range(1 + args.steps):
        for seconds in times.values():
            start = measure.clock()
            next(run)
            seconds.append(measure.clock() - start)
    return {budget: spread(seconds[1:]) for budget, seconds in times.items()}


# --- what can be asked -----------------------------------------------------------------------------------------------


def main(kind: type[Task], parser: argparse.ArgumentParser) -> None:
    """Run what the arguments ask for, print it as Markdown, and write it to `--output`."""
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    measure.clock = measure.CLOCKS[args.clock]
    torch.set_num_threads(1 if args.clock == "cpu" else args.threads)
    try:
        answer(kind, args)
    except TunesmithError as error:
        sys.exit(f"error: {error}")


def answer(kind: type[Task], args: Any) -> None:
    if args.side:
        print(json.dumps(alone(kind(args), args)))
        return
    if args.memory:
        result, lines = (found := memory()), show_memory(kind, args, found)
    elif args.growth:
        result, lines = (found := growth(args)), show_growth(found)
    elif args.budgets:
        result, lines = (found := budgets(kind(args), args)), show_budgets(found)
    else:
        result, lines = (found := side_by_side(kind(args), args)), show(kind, args, found)
    print(lines)
    if args.output:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
        about = {"versions": versions(PACKAGES), "settings": settings}
        args.output.write_text(json.dumps({**about, **result}, indent=1) + "\n")


def options(doc: str | None, steps: int, rounds: int, batch: int) -> argparse.ArgumentParser:
    """The arguments that both benchmarks take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=batch, help="examples of a step")
    parser.add_argument("--steps", type=int, default=steps, help="steps of a block")
    parser.add_argument("--rounds", type=int, default=rounds, help="blocks of each side, after one step that warms up")
    parser.add_argument("--rows", type=int, help="training rows at most")
    parser.add_argument("--max-tokens", type=int, help="tokens of a micro-batch of ours")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=measure.CLOCKS, default="wall", help="cpu: CPU seconds of one thread")
    parser.add_argument("--output", type=Path, help="write every figure to this JSON file")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--memory", action="store_true", help="peak memory of both sides, each in its own process")
    mode.add_argument("--growth", type=int, metavar="ROWS", help="ours over 1, 2, 4 and 8 times so many rows")
    mode.add_argument("--budgets", type=int, nargs="+", metavar="TOKENS", help="time ours with these --max-tokens")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    return parser


def add_path(parser: argparse.ArgumentParser, option: str, variable: str, what: str) -> None:
    """A file that the user must have: given as an argument or by an environment variable."""

    def existing(text: str) -> Path:
        if text and Path(text).exists():
            return Path(text)
        found = f"{text} does not exist" if text else f"not given, and {variable} is not set"
        raise argparse.ArgumentTypeError(f"{found}. It is {what}; benchmarks/README.md says where to get it")

    # argparse runs `type` over this default too, where the option is not given
    parser.add_argument(option, type=existing, default=os.environ.get(variable, ""), help=f"{what} (or {variable})")


def show(kind: type[Task], args: Any, result: dict[str, Any]) -> str:
    a, b, before = result["ours"], result["theirs"], result["before"]
    rows = [[f"batch {args.batch}", "before", "tunesmith", f"{kind.peer_name}, {args.peer}"]]
    rows += [[name, before.get(name, ""), a[name], b[name]] for name in a]
    lines = [table(rows), ""]
    for name, ratio in result["ratio"].items():
        lines.append(
            f"{name}/s, ours over theirs: {ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}] over "
            f"{args.rounds} rounds of {args.steps} steps; of the sums {ratio['of_sums']:.2f}"
        )
    rates = spread([one["machine"] / 1e9 for one in result["rounds"]])
    lines.append(f"machine: {rates['median']:.0f} [{rates['min']:.0f}, {rates['max']:.0f}] GFLOP/s")
    gaps = [abs(x - y) for x, y in zip(result["losses"]["ours"], result["losses"]["theirs"], strict=True)]
    lines.append(f"difference of the training losses: at the first step {gaps[0]:.1e}, at most {max(gaps):.1e}")
    return "\n".join(lines)


def show_memory(kind: type[Task], args: Any, found: dict[str, Any]) -> str:
    a, b = found["ours"], found["theirs"]
    head = [f"batch {args.batch}, MB", "tunesmith", f"{kind.peer_name}, {args.peer}", "ratio"]
    rows = [[name, f"{a[name]:.0f}", f"{b[name]:.0f}", a[name] / b[name]] for name in ("peak", "loaded")]
    return table([head, *rows])


def show_growth(found: dict[str, Any]) -> str:
    rows: list[list[Any]] = [["rows", "ms an example", "smallest", "largest", "peak MB", "loaded MB"]]
    for count, runs in found.items():
        each = spread([1000 * run["seconds"] / run["examples"] for run in runs])
        memory = [f"{spread([run[key] for run in runs])['median']:.0f}" for key in ("peak", "loaded")]
        rows.append([count, *each.values(), *memory])
    return table(rows)


def show_budgets(found: dict[str, Any]) -> str:
    return table(
        [["tokens a micro-batch at most", *next(iter(found.values()))]] + [[k, *v.values()] for k, v in found.items()]
    )


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Markdown; the first row is the head."""
    lines = ["| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
