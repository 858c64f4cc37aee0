"""Answers to multi-turn questions: from files, or from a run, which is asked turn after turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tunesmith import runs
from tunesmith.console import warn
from tunesmith.data import questions
from tunesmith.data.questions import MultiTurnQuestion, Turns
from tunesmith.errors import DataError, RunError
from tunesmith.judging.judge_prompts import JudgeItem, JudgeTurn
from tunesmith.pipeline import engines
from tunesmith.pipeline.task_table import task_of
from tunesmith.runs import Run
from tunesmith.types import Message


def items(sources: Sequence[Path], question_file: str, references: str | None, folder: Run) -> list[JudgeItem]:
    """Return every turn of every question with the turns before it: one item per turn and model.

    question_file, references: files as data/questions.py reads them. sources: files of answers, or runs to ask.
    """
    wanted = questions.read(question_file, references)
    made = []
    for source in sources:
        model, answers = ask(runs.find(source), wanted, folder) if source.is_dir() else questions.answers(source)
        missing = [question.id for question in wanted if question.id not in answers]
        if missing:
            warn(f"{model} answers {len(answers):,} of {len(wanted):,} questions; not {', '.join(missing[:5])}")
        for question in (question for question in wanted if question.id in answers):
            written = answers[question.id]
            if len(written) != len(question.turns):
                raise DataError(
                    f"{source}: question {question.id}: turns and answers differ in number",
                    expected=f"{len(question.turns)} answers",
                    found=f"{len(written)} answers of {model}",
                    do="answer every turn",
                )
            turns = [
                JudgeTurn(text, (answer,), reference=reference)
                for text, answer, reference in zip(question.turns, written, question.references, strict=True)
            ]
            made += [JudgeItem(question.id, (model,), tuple(turns[:number])) for number in range(1, len(turns) + 1)]
    if not made:
        raise DataError(
            "no question is answered",
            expected="answers with the question_id of a question",
            found=f"{len(wanted):,} questions without an answer",
            do="give answers to these questions",
        )
    return made


def ask(run: Run, wanted: Sequence[MultiTurnQuestion], folder: Run) -> tuple[str, dict[str, Turns]]:
    """Return a run's name and its answers by question, each turn with those before it; stored in `folder` for reuse."""
    if not task_of(run).has_responses:
        raise RunError(f"{run.path} was not trained to answer", do="give a run of task instruction")
    recipe, name = run.recipe, run.manifest.name
    stored = folder.path / "judgements" / f"answers-{run.path.resolve().name}.jsonl"
    settings = recipe.generate.model_dump(mode="json") | {"seed": recipe.seed}
    lines = [json.loads(line) for line in stored.read_text("utf-8").splitlines()] if stored.exists() else []
    known = {line["asked"]: line for line in lines if line["settings"] == settings}
    keys = {question.id: json.dumps(question.turns, ensure_ascii=False) for question in wanted}
    if any(key not in known for key in keys.values()):
        answers = _generate(run, wanted)
        lines = [
            {
                "question_id": question.id,
                "model_id": name,
                "choices": [{"index": 0, "turns": answers[question.id]}],
                "asked": keys[question.id],
                "settings": settings,
            }
            for question in wanted
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        runs.write_whole(stored, text.encode())
        known = {line["asked"]: line for line in lines}
    return name, {question_id: tuple(known[key]["choices"][0]["turns"]) for question_id, key in keys.items()}


def _generate(run: Run, wanted: Sequence[MultiTurnQuestion]) -> dict[str, list[str]]:
    generator, recipe = engines.load_generator(run, run.recipe.generate.engine), run.recipe
    conversations: dict[str, list[Message]] = {question.id: [] for question in wanted}
    for turn in range(max(len(question.turns) for question in wanted)):
        unfinished = [question for question in wanted if len(question.turns) > turn]
        for question in unfinished:
            conversations[question.id].append(Message("user", question.turns[turn]))
        ids = [question.id for question in unfinished]
        responses = generator.respond(ids, [conversations[name] for name in ids], recipe.generate, recipe.seed)
        for name, response in zip(ids, responses, strict=True):
            conversations[name].append(Message("assistant", response.text))
    return {name: [message.content for message in messages[1::2]] for name, messages in conversations.items()}
