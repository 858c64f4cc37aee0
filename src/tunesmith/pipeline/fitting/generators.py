"""Fine-tuning a causal language model: to answer instructions, or to name labels or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn

from tunesmith import processes
from tunesmith.console import say, warn
from tunesmith.data import batches, label_questions, shots as chosen_shots, token_cache, truncation
from tunesmith.data.batches import MicroBatches, Sampler
from tunesmith.data.conversations import transcript
from tunesmith.data.encode import EncodedText
from tunesmith.data.label_questions import LabelQuestion
from tunesmith.data.prompts import ChatEncoder
from tunesmith.data.shots import Shots
from tunesmith.data.shuffled_stream import ShuffledStream, StreamBatches, open_stream
from tunesmith.errors import DataError, RecipeError
from tunesmith.manifest import LogEntry, Sample, TrainingNotes
from tunesmith.models import adapters, packing, pretrained
from tunesmith.pipeline.fitting import finetune, weight_setup
from tunesmith.pipeline.fitting.finetune import HeldOutEvaluation, TrainingSetup, make_sampler, sample
from tunesmith.pipeline.fitting.job import Job
from tunesmith.prediction import classify
from tunesmith.prediction.generate import Generator
from tunesmith.prediction.label import LabelClassifier, asks_for_labels
from tunesmith.protocols import TrainResult
from tunesmith.recipe import Recipe
from tunesmith.tasks.text_targets import Target
from tunesmith.training import causal
from tunesmith.training.loop import Scores
from tunesmith.types import DataNote, Example, Message, Splits

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest difference between the logits of packed and separate rows, relative to the largest logit."""


def untuned(job: Job, chat_encoder: ChatEncoder | None = None) -> TrainResult:
    """Return the model as it is: nothing is trained, and only its name is stored.

    chat_encoder: that of a model trained by this job; None to make one.
    """
    recipe = job.recipe
    tokenizer = chat_encoder.tokenizer if chat_encoder else pretrained.tokenizer(recipe.model)
    question, shots = question_of(job.target, job.splits, recipe), shots_of(job.splits, recipe)
    chat_encoder = chat_encoder or make_chat_encoder(recipe, question, tokenizer, shots)
    chat_encoder = replace(chat_encoder, train_on_prompt=False)
    model = pretrained.causal_lm(recipe.model, tokenizer, recipe.seed).module.to(processes.device())
    generator = Generator(model, chat_encoder, pretrained.longest_input(recipe.model, tokenizer), recipe.model)
    total, _ = adapters.count(model)
    notes = TrainingNotes(device=str(processes.device()), template=chat_encoder.template)
    return TrainResult(_predictor(generator, job, question, shots), total, 0, notes)


def prepare(job: Job, accelerator: Accelerator) -> TrainingSetup:
    """Return a causal language model, and the training conversations packed or padded."""
    recipe = job.recipe
    tokenizer = pretrained.tokenizer(recipe.model)
    question, shots = question_of(job.target, job.splits, recipe), shots_of(job.splits, recipe)
    chat_encoder = make_chat_encoder(recipe, question, tokenizer, shots)
    plan = weight_setup.plan(job, accelerator.device)
    loaded = pretrained.causal_lm(plan.model, tokenizer, recipe.seed, plan.quantization)
    model = weight_setup.apply(plan, loaded, recipe, "CAUSAL_LM").to(accelerator.device)
    for row in job.splits.test:  # the template should refuse a row before training, not after it
        chat_encoder.pieces(row.messages)
    limit = pretrained.longest_input(plan.model, tokenizer)
    generator = Generator(model, replace(chat_encoder, train_on_prompt=False), limit)
    predictor = _predictor(generator, job, question, shots)
    tokenize = partial(encode, recipe=recipe, question=question, chat_encoder=chat_encoder, limit=limit, shots=shots)
    key = [*token_cache.identity(tokenizer), limit, question, shots.rows, recipe.prompt, recipe.seed]
    keep = recipe.data.cache and shots.similar is None  # whose embeddings no key holds
    rows, changes = token_cache.tokenized(job.splits.train, tokenize, key, keep=keep)
    for change in [] if job.splits.is_stream else changes:
        say(f"train: {change.count:,} of {len(job.splits.train):,} rows {change.what}")
    if not rows:
        found, do = f"{len(job.splits.train):,} rows, all too long", "raise model.max_length"
        raise DataError("no training row is left", expected="rows that fit", found=found, do=do)
    packed_later = [] if question or packing.sliding_window(model) else _longest(job, generator)
    if job.splits.is_stream:  # a row that is yet to come may be as long as any
        ids = (rows[0].ids * limit)[:limit]
        packed_later.append(EncodedText("longest", ids, ids))
    micro_batches, loss, padded = _layout(rows, packed_later, job, accelerator, model, plan.dtype)
    if isinstance(predictor, LabelClassifier):
        classifier = predictor
        # a new copy each time: what a classifier caches about its model is out of date after more steps
        evaluate: HeldOutEvaluation | _Validation = HeldOutEvaluation(
            job, lambda rows: replace(classifier).predict(rows)
        )
    else:
        if padded is None and plan.dtype == torch.float32:  # other number formats were tried with less precision
            predictor = replace(predictor, packs_up_to=packing.reach([row.labels for row in [*rows, *packed_later]]))
        evaluate = _Validation(job, predictor, loss, micro_batches)
    notes = replace(
        plan.notes,
        adapter=adapters.describe(model),
        template=chat_encoder.template,
        layout="packed" if padded is None else f"padded: {padded}",
    )
    stream = _stream(job, accelerator, chat_encoder, limit) if job.splits.is_stream else None
    return TrainingSetup(
        model,
        StreamBatches(stream, micro_batches, recipe.train.max_steps or 1) if stream else micro_batches,
        loss,
        evaluate,
        lambda: predictor,
        partial(reload, recipe),
        notes.with_cut(changes),
        evaluates_all=evaluate.is_whole,
        write_best=evaluate.write if isinstance(evaluate, HeldOutEvaluation) else None,
        is_causal=True,
        stream=stream,
    )


def reload(recipe: Recipe, folder: Path) -> LabelClassifier | Generator:
    """Load what `prepare` made from the folder it was saved in: a generator, or the classifier around it."""
    kind = LabelClassifier if asks_for_labels(folder) else Generator
    return kind.load(folder, recipe.model.trust_remote_code)


def question_of(target: Target, splits: Splits, recipe: Recipe) -> LabelQuestion | None:
    """Return what is asked about every text; None of instructions, which ask themselves."""
    descriptions = recipe.data.label_descriptions
    return LabelQuestion.about(target, splits.train, recipe.prompt, recipe.predict.mode, descriptions)


def shots_of(splits: Splits, recipe: Recipe) -> Shots:
    """Return the training rows that prompts show with their answers."""
    return chosen_shots.choose(splits.train, recipe.prompt, recipe.seed, classify.embedder)


def encode(
    examples: Sequence[Example],
    recipe: Recipe,
    question: LabelQuestion | None,
    chat_encoder: ChatEncoder,
    limit: int,
    shots: Shots = Shots(),
) -> tuple[list[EncodedText], list[DataNote]]:
    """Return conversations to learn from, or texts with the answers to a question."""
    if question is not None:
        return label_questions.encode(question, examples, recipe.prompt, recipe.seed, chat_encoder, limit, shots)
    names, conversations = [example.id for example in examples], [example.messages for example in examples]
    return truncation.encode(names, conversations, chat_encoder, [limit] * len(names), recipe.prompt.truncation)


def make_chat_encoder(recipe: Recipe, question: LabelQuestion | None, tokenizer: Any, shots: Shots) -> ChatEncoder:
    """Return the chat encoder of a recipe; its `auto` template is another if there is a question.

    Without one, shots are conversations before every other.
    """
    chat_encoder = ChatEncoder.of(recipe.prompt, tokenizer, "classify" if question else None)
    if question or not shots.rows:
        return chat_encoder
    turns = [[replace(turn, learned=False) for turn in row.messages if turn.role != "system"] for row in shots.rows]
    if own := sum(row.messages[0].role == "system" for row in shots.rows):
        say(f"note: {own} of {len(turns)} shots have a system message, which is not shown: the prompt has its own")
    shown = replace(chat_encoder, shots=tuple(map(tuple, turns)))
    shown.check()  # the template may rewrite earlier turns
    return shown


def _stream(job: Job, accelerator: Accelerator, chat_encoder: ChatEncoder, limit: int) -> ShuffledStream:
    """Return the rows to learn from, of a recipe that streams them."""
    recipe = job.recipe
    if recipe.train.sampling != "shuffled":
        raise RecipeError("a stream is not sampled by label", do="leave train.sampling out")
    size = finetune.step_size(job, accelerator)
    return open_stream(
        recipe.data, recipe.split, recipe.seed, size, lambda row: encode([row], recipe, None, chat_encoder, limit)
    )


def _predictor(
    generator: Generator, job: Job, question: LabelQuestion | None, shots: Shots
) -> LabelClassifier | Generator:
    """Return the generator itself, or the classifier around it if there is a question."""
    recipe = job.recipe
    if question is None:
        _check_room(generator, recipe)
        return generator
    budget = recipe.engine.max_tokens_per_micro_batch
    classifier = LabelClassifier(generator, job.target, question, recipe.predict, budget, shots)
    classifier.check()
    return classifier


def _check_room(generator: Generator, recipe: Recipe) -> None:
    """Raise DataError where shots leave no room for a prompt and its answer."""
    limit, answer = generator.context_length, generator.max_answer_tokens(recipe.generate)
    length = len(generator.tokenize([Message("user", "a")]))
    if generator.chat_encoder.shots and length > limit - answer:
        raise DataError(
            f"the {len(generator.chat_encoder.shots)} shots leave no room for a prompt",
            expected=f"at most {limit} tokens for prompt and answer (model.max_length)",
            found=f"{length} tokens without a prompt, {answer} of an answer (generate.max_new_tokens)",
            do="raise model.max_length, or lower prompt.shots",
        )


def _longest(job: Job, generator: Generator) -> list[EncodedText]:
    """Return the held-out conversation of the most characters, whose loss is measured after the training."""
    held_out = [*job.splits.validation, *job.splits.test]
    if not held_out:
        return []
    row = max(held_out, key=lambda row: sum(len(message.content) for message in row.messages))
    return truncation.encode([row.id], [row.messages], generator.chat_encoder, [generator.max_length], "truncate")[0]


def _layout(
    rows: Sequence[EncodedText],
    packed_later: Sequence[EncodedText],
    job: Job,
    accelerator: Accelerator,
    model: nn.Module,
    dtype: torch.dtype,
) -> tuple[MicroBatches[EncodedText, Any], Any, str | None]:
    """Return the micro-batches, their loss, and why rows are padded (None if they are packed).

    packed_later: other rows that the model must support packed.
    """
    engine, config = job.recipe.engine, cast(Any, model.config)
    reason: str | None = "engine.layout"
    if engine.layout != "padded":
        tried = [*rows, *packed_later]
        ids, labels = [row.ids for row in tried], [row.labels for row in tried]
        reason = packing.set_up(model, ids, labels, TOLERANCE[dtype], by_segments=not engine.compile)
        if reason is None and not causal.head_decides(model, rows[0].ids):
            reason = "its logits are changed after the head"
        if reason and engine.layout == "packed":
            raise RecipeError(
                f"engine.layout=packed does not suit {job.recipe.model.name_or_path}", found=reason, do="set auto"
            )
        if reason:
            warn(f"rows are padded, not packed: {reason}")
    sampler = Sampler(len(rows), len(rows), 0) if job.splits.is_stream else make_sampler(job, accelerator, rows)
    budget = batches.token_budget(engine.max_tokens_per_micro_batch, accelerator.device)
    place = accelerator.process_index, accelerator.num_processes
    if reason is None:
        packed = causal.PackedCausal(per_token=job.loss())
        return MicroBatches(rows, sampler, causal.PackedTexts(), budget, *place), packed, None
    loss = causal.PaddedCausal(per_token=job.loss(), through_model=not causal.head_decides(model, rows[0].ids))
    return MicroBatches(rows, sampler, causal.PaddedTexts(config.pad_token_id), budget, *place), loss, reason


class _Validation:
    """Measures the mean loss of the answers' tokens, and logs answers to the first few prompts."""

    def __init__(
        self, job: Job, generator: Generator, loss: Any, micro_batches: MicroBatches[EncodedText, Any]
    ) -> None:
        self.job, self.generator, self.loss = job, generator, replace(loss, per_token=None)
        rows = sample(job.splits.validation, job.recipe)
        self.held_out, is_uncut = self._batches(rows, micro_batches)
        self.is_whole = is_uncut and len(rows) == len(job.splits.validation) > 0
        learned = sample(job.splits.train, job.recipe) if job.recipe.evaluate.eval_batches else []
        self.learned, _ = self._batches(learned, micro_batches)

    def __call__(self, step: int) -> Scores:
        scores = {"loss": self._loss(self.held_out)}
        if self.learned:
            scores["train_loss"] = self._loss(self.learned)
        self._answer(step)
        return scores

    def _batches(
        self, examples: Sequence[Example], micro_batches: MicroBatches[EncodedText, Any]
    ) -> tuple[list[Any], bool]:
        """Return the examples as batches, and whether each is in them as it is."""
        generator = self.generator
        rows, changes = encode(examples, self.job.recipe, None, generator.chat_encoder, generator.max_length)
        whole = batches.Sampler(len(rows), max(1, len(rows)), 0)
        return replace(micro_batches, rows=rows, sampler=whole, rank=0, processes=1)(0) if rows else [], not changes

    def _loss(self, rows: Sequence[Any]) -> float:
        model = self.generator.model
        device = next(model.parameters()).device

        def measure(share: Sequence[Any]) -> list[float]:
            return [float(self.loss.total(model, batch.to(device))) for batch in share]

        with torch.no_grad():
            total = sum(processes.share(rows, measure))
        return total / max(1.0, float(sum(self.loss.count(batch) for batch in rows)))

    def _answer(self, step: int) -> None:
        recipe = self.job.recipe
        shown = self.job.splits.validation[: recipe.evaluate.num_samples]
        if not shown or not processes.is_main():
            return
        questions = [row.messages[:-1] for row in shown]
        with processes.sharing(False):
            answers = self.generator.attempt([row.id for row in shown], questions, recipe.generate, recipe.seed)
        samples = [
            Sample(row.id, transcript(question), row.messages[-1].content, answer.text)
            for row, question, answer in zip(shown, questions, answers, strict=True)
            if answer
        ]
        if not samples:
            return
        say(f"step {step}, asked {samples[0].prompt[:80]!r}: {samples[0].response[:160]!r}")
        self.job.run.log(LogEntry(step, samples=tuple(samples)))
