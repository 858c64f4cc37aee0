"""What surrounds the loop: progress, metrics, checkpoints, the best weights, interruption and resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import patch_environment

from tunesmith import processes, runs
from tunesmith.console import can_draw, meter, say, warn
from tunesmith.data.shuffled_stream import ShuffledStream
from tunesmith.errors import Interrupted, MissingExtra, TrainingError
from tunesmith.manifest import LogEntry
from tunesmith.pipeline.fitting import interruption, weight_setup
from tunesmith.pipeline.fitting.interruption import StopRequest
from tunesmith.pipeline.fitting.job import Job
from tunesmith.training import checkpoint, loop, sharding
from tunesmith.training.callbacks import Callback


@dataclass
class Session:
    """A training in progress. Only the main process writes."""

    job: Job
    accelerator: Accelerator
    plan: loop.TrainingPlan
    steps_per_epoch: int
    write_model: Callable[[Path], None]
    """Writes the current weights into a folder."""
    callbacks: Sequence[Callback] = ()
    write_best: Callable[[], None] | None = None
    """Writes what else belongs to the best weights."""
    stream: ShuffledStream | None = None
    """What is learned from, where that is a stream."""
    losses: list[float] = field(default_factory=list)
    """Losses of the steps since the last line in metrics.jsonl."""
    best_step: int | None = None
    earlier_seconds: float = 0.0
    """Seconds of training before this process took over."""

    @property
    def checkpoints(self) -> Path:
        return self.job.run.path / "checkpoints"

    def resume(self, state: loop.TrainState) -> None:
        """Restore the newest undamaged checkpoint, if there is one."""
        newest = checkpoint.newest(self.checkpoints)
        notes = checkpoint.load(newest, state) if newest else None
        if self.accelerator.is_main_process:
            checkpoint.remove_leftovers(self.checkpoints)
            self.job.run.cut_metrics(notes.metrics if notes else 0)
        if newest is None or notes is None:
            return
        self.losses, self.best_step, self.earlier_seconds = notes.losses, notes.best_step, notes.seconds
        if self.stream is not None and notes.stream is not None:
            self.stream.restore(notes.stream)
        if notes.threads != torch.get_num_threads():
            warn(f"{notes.threads} threads before, {torch.get_num_threads()} now: the last bits may differ")
        say(f"resuming at step {state.step} of {self.plan.num_steps} ({newest.name})")

    def follow(self, steps: Iterator[loop.Step], state: loop.TrainState) -> None:
        """Consume the loop to its end. Raises Interrupted, after a checkpoint, if a signal asks to stop."""
        start = time.perf_counter()
        with meter("train", self.plan.num_steps) as show, interruption.watched() as stop_request:
            for step in steps:
                show(step.number, f"loss {step.loss:.4f}")
                last = step.number == self.plan.num_steps or self.plan.should_stop_early(
                    state.evals_without_improvement
                )
                self._record(step, state, last)
                for callback in self.callbacks:
                    callback.on_step(step, state)
                    if step.scores is not None:
                        callback.on_evaluate(step, state)
                stopped_by = self._agree(stop_request)
                if stopped_by or self._is_due(step.number):
                    self._save(state, self.earlier_seconds + time.perf_counter() - start)
                if stopped_by:
                    raise Interrupted(
                        f"stopped at step {step.number} of {self.plan.num_steps}",
                        stopped_by,
                        do=f"go on with: tunesmith train --resume {self.job.run.path}",
                    )
        if state.skipped:
            warn(f"skipped {state.skipped} step(s), which had nothing to learn or overflowed fp16")

    def validation(self, step: int) -> dict[str, float] | None:
        """Return the scores of the validation split after a step; None where it was not evaluated then."""
        return next((line.validation for line in self.job.run.metrics() if line.step == step and line.validation), None)

    def _agree(self, stop_request: StopRequest) -> int:
        """Return the signal that asks any of the processes to stop, 0 for none: all stop after the same step."""
        if self.accelerator.num_processes == 1:
            return stop_request.signal or 0
        number = torch.tensor(stop_request.signal or 0, device=self.accelerator.device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return int(number)

    def _record(self, step: loop.Step, state: loop.TrainState, last: bool) -> None:
        if not step.skipped:
            self.losses.append(step.loss)
        every = self.job.recipe.evaluate.logging_steps
        if self.losses and (step.number == 1 or step.number % every == 0 or last):
            self._log_losses(step)
        if step.scores is not None:
            self._log_scores(step, step.scores, state)
        if step.is_best and self.job.recipe.evaluate.load_best_model_at_end:
            self.best_step = step.number
            with sharding.gathered(state.model):
                if self.accelerator.is_main_process:
                    runs.write_folder(self.job.run.model, self.write_model)
                    if self.write_best:
                        self.write_best()
                    for callback in self.callbacks:
                        callback.on_save(self.job.run.model, state)

    def _log_losses(self, step: loop.Step) -> None:
        mean = sum(self.losses) / len(self.losses)
        entry = LogEntry(step.number, mean, step.grad_norm, step.learning_rate)
        self._log(entry, {"loss": mean, "grad_norm": step.grad_norm, "learning_rate": step.learning_rate})
        self.losses.clear()
        if not can_draw():
            say(f"step {step.number}/{self.plan.num_steps}: loss {mean:.4f}, learning rate {step.learning_rate:.2e}")

    def _log_scores(self, step: loop.Step, scores: loop.Scores, state: loop.TrainState) -> None:
        validation = {name: value for name, value in scores.items() if name != "train_loss"}
        train_loss = scores.get("train_loss")
        values = {f"validation_{name}": value for name, value in validation.items()}
        if train_loss is not None:
            values["train_loss"] = train_loss
        self._log(LogEntry(step.number, train_loss=train_loss, validation=validation), values)
        metric = self.plan.metric
        best = "the best so far" if step.is_best else f"best {state.best:.4f}"
        say(
            f"step {step.number}/{self.plan.num_steps}: loss {step.loss if train_loss is None else train_loss:.4f}, "
            f"validation {metric} {validation[metric]:.4f} ({best})"
        )

    def _log(self, entry: LogEntry, values: dict[str, float]) -> None:
        """Append an entry to metrics.jsonl. values: the same for trackers."""
        if self.accelerator.is_main_process:
            self.job.run.log(entry)
        self.accelerator.log(values, step=entry.step)

    def _is_due(self, number: int) -> bool:
        engine = self.job.recipe.engine
        every = {"epoch": self.steps_per_epoch, "steps": engine.save_steps, "no": None}[engine.save_strategy]
        return every is not None and number % every == 0 and number < self.plan.num_steps

    def _save(self, state: loop.TrainState, seconds: float) -> None:
        content = checkpoint.snapshot(state)
        if self.accelerator.is_main_process:
            lines, threads = len(self.job.run.metrics()), torch.get_num_threads()
            position = None if self.stream is None else self.stream.position
            notes = checkpoint.SessionNotes(self.losses, self.best_step, seconds, lines, threads, position)
            folder = checkpoint.save(self.checkpoints, content, notes, self.job.recipe.engine.save_total_limit)
            for callback in self.callbacks:
                callback.on_save(folder, state)
        self.accelerator.wait_for_everyone()


@contextmanager
def accelerated(job: Job) -> Iterator[Accelerator]:
    """Yield the accelerator in the recipe's precision, with its trackers running."""
    wanted = list(job.recipe.evaluate.report_to)
    available = [str(name) for name in get_available_trackers()]
    if missing := [name for name in wanted if name not in available]:
        raise MissingExtra(
            f"evaluate.report_to names {', '.join(missing)}",
            found="not installed",
            do=f"pip install {' '.join(missing)}",
        )
    AcceleratorState._reset_state()  # an earlier training in this process may have had another precision
    with patch_environment(**processes.WITHOUT_DEEPSPEED):
        precision: str = job.recipe.engine.mixed_precision
        if precision == "auto":
            measured = weight_setup.measured_precision(job, processes.device())
            precision = measured.mixed_precision
            say(f"precision: {precision} (bfloat16 is {measured.bfloat16_speedup} times as fast here)")
        accelerator = Accelerator(
            cpu=processes.on_cpu(),
            mixed_precision=precision,
            log_with=wanted or None,
            project_dir=job.run.path,
            # XLNet and others hold parameters that classification never uses
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    if precision == "fp16" and accelerator.scaler is None:
        raise TrainingError(
            f"cannot train in fp16 on {accelerator.device.type}: Accelerate does not scale the loss there",
            expected="an accelerator, such as a CUDA GPU",
            do="set engine.mixed_precision=bf16, or auto to take the faster of bf16 and float32",
        )
    accelerator.init_trackers("tunesmith")
    try:
        yield accelerator
    finally:
        for tracker in accelerator.trackers:  # `end_training` would part the processes too, which evaluate together
            tracker.finish()
