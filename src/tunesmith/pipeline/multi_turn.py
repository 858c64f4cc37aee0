"""Answers to questions of several turns: from files, or by a run, which is asked turn after turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tunesmith import runs
from tunesmith.console import warn
from tunesmith.data import questions
from tunesmith.data.questions import MultiTurnQuestion, Turns
from tunesmith.errors import DataError, RunError
from tunesmith.judging.judge_prompts import JudgedTurn, JudgeItem
from tunesmith.pipeline.fitting.methods import load_generator
from tunesmith.pipeline.task_table import task_of
from tunesmith.runs import Run
from tunesmith.types import Message


def items(places: Sequence[Path], asked: str, references: str | None, folder: Run) -> list[JudgeItem]:
    """Every turn of every question, each with those before it: one item a turn and model.

    asked, references: files as data/questions.py has them. places: files of answers, or runs that are asked.
    """
    wanted = questions.read(asked, references)
    given = [ask(runs.find(place), wanted, folder) if place.is_dir() else questions.answers(place) for place in places]
    found = []
    for model, said in given:
        missing = [one.id for one in wanted if one.id not in said]
        if missing:
            warn(f"{model} answers {len(said):,} of {len(wanted):,} questions; not {', '.join(missing[:5])}")
        found += [item for one in wanted if one.id in said for item in _turns(one, model, said[one.id])]
    if not found:
        raise DataError("no question is answered", do="give answers to these questions: question_id must be the same")
    return found


def ask(run: Run, wanted: Sequence[MultiTurnQuestion], folder: Run) -> tuple[str, dict[str, Turns]]:
    """A run's answers, turn by turn, each with those before it; stored in `folder` and not asked for again."""
    if not task_of(run).has_responses:
        raise RunError(f"{run.path} was not trained to answer", do="give a run of task instruction")
    recipe, name = run.recipe, run.manifest.name
    stored = folder.path / "judgements" / f"answers-{run.path.resolve().name}.jsonl"
    made_with = recipe.generate.model_dump(mode="json") | {"seed": recipe.seed}
    lines = [json.loads(line) for line in stored.read_text("utf-8").splitlines()] if stored.exists() else []
    known = {line["asked"]: line for line in lines if line["settings"] == made_with}
    if any(_asked(one) not in known for one in wanted):
        said = _answer(run, wanted)
        lines = [
            {
                "question_id": one.id,
                "model_id": name,
                "choices": [{"index": 0, "turns": said[one.id]}],
                "asked": _asked(one),
                "settings": made_with,
            }
            for one in wanted
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        runs.write_whole(stored, text.encode())
        known = {line["asked"]: line for line in lines}
    return name, {one.id: tuple(known[_asked(one)]["choices"][0]["turns"]) for one in wanted}


def _asked(question: MultiTurnQuestion) -> str:
    return json.dumps(question.turns, ensure_ascii=False)


def _answer(run: Run, wanted: Sequence[MultiTurnQuestion]) -> dict[str, list[str]]:
    generator, recipe = load_generator(run), run.recipe
    talks: dict[str, list[Message]] = {one.id: [] for one in wanted}
    for turn in range(max(len(one.turns) for one in wanted)):
        asked = [one for one in wanted if len(one.turns) > turn]
        for one in asked:
            talks[one.id].append(Message("user", one.turns[turn]))
        found = generator.respond(
            [one.id for one in asked], [talks[one.id] for one in asked], recipe.generate, recipe.seed
        )
        for one, answer in zip(asked, found, strict=True):
            talks[one.id].append(Message("assistant", answer.text))
    return {name: [message.content for message in talk[1::2]] for name, talk in talks.items()}


def _turns(question: MultiTurnQuestion, model: str, said: Turns) -> list[JudgeItem]:
    if len(said) != len(question.turns):
        raise DataError(f"question {question.id}: {len(question.turns)} turns but {len(said)} answers of {model}")
    turns = [
        JudgedTurn(asked, (answer,), reference=reference)
        for asked, answer, reference in zip(question.turns, said, question.references, strict=True)
    ]
    return [JudgeItem(question.id, model, tuple(turns[:number])) for number in range(1, len(turns) + 1)]
