"""`tunesmith judge`: answers of runs or files before a judge, and what came of it; or scores that others gave."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith import __version__, recipe as recipes
from tunesmith.console import say, warn
from tunesmith.data.rows import merge
from tunesmith.data.summary import lines
from tunesmith.endpoints import journal
from tunesmith.endpoints.client import JudgeClient
from tunesmith.endpoints.journal import Journal
from tunesmith.errors import DataError, RecipeError
from tunesmith.evaluation import judge_pairs, judge_scores
from tunesmith.judging import judge_runner
from tunesmith.judging.judge_prompts import JudgedTurn, JudgeItem, Rubric
from tunesmith.judging.judge_runner import PAIR
from tunesmith.pipeline import judge_models, multi_turn, response_comparison, run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.response_comparison import ModelResponses, ResponseColumns
from tunesmith.recipe import Recipe
from tunesmith.reporting import judge_report
from tunesmith.reporting.schema import command_line
from tunesmith.runs import Run
from tunesmith.types import ResponseRow

FOLDER = "judgements"
RESULT = "judged.json"


@dataclass(frozen=True)
class JudgeResult:
    """What a judge said, and the folder that it was written to."""

    folder: Run
    content: dict[str, Any]

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder.path / "judge.html"


@dataclass(frozen=True)
class JudgeInput:
    """What is judged: columns of a file, or answers to questions of several turns."""

    columns: ResponseColumns = field(default_factory=ResponseColumns)
    """What a file's columns are called, where their names do not say what they are."""
    questions: str | None = None
    """A file such as MT-bench's question.jsonl."""
    references: str | None = None
    """A file of reference answers to the questions."""
    pairwise: bool = False
    """Compare each two models instead of scoring each."""


def judge(
    *sources: str | Path,
    overrides: Sequence[str] = (),
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    matter: JudgeInput | None = None,
    output: str | Path | None = None,
) -> JudgeResult:
    """Have the answers of run directories or of files judged.

    overrides: settings, such as `judge.model=llama3`; they stand on top of `recipe`, or else of the recipe of the first
    run. Everything is written to `output`: unless given, to the run where there is just one, or to a new folder beside
    the first file. Run again after a kill, it goes on where it stopped.
    """
    if not sources:
        raise RecipeError("nothing to judge", do="give run directories, or files with answers")
    matter = matter or JudgeInput()
    places = [Path(source).expanduser() for source in sources]
    found = [run for place in places if (run := response_comparison.as_run(place)) is not None]
    settings = recipes.load(recipe or (found[0].recipe if found else {}), overrides)
    rubric = Rubric.of(settings.judge.rubric, settings.judge.references)
    folder = _folder(places, found, output)
    if matter.questions:
        items = multi_turn.items(places, matter.questions, matter.references, folder)
    else:
        before = run_report.shared_base(found) if settings.evaluate.base else []
        own = [model for place in places for model in response_comparison.read(place, matter.columns, graded=False)]
        items = _items([*own, *([ModelResponses(base_model.NAME, str(found[0].path), before)] if before else [])])
    items = _drawn(items, settings)
    items = list(_pairs(items)) if matter.pairwise else items
    tests = judge_runner.controls(items, settings.judge.controls, settings.seed)
    sittings = [_sit(one, [*items, *tests], rubric, settings, folder) for one in judge_models.of(settings)]
    content = _content(items, sittings, settings, rubric, _title(places))
    _write(folder, content)
    if folder.path in [run.path for run in found]:
        run_report.write_run(folder)
    return JudgeResult(folder, content)


def _sit(
    one: JudgeClient, items: Sequence[JudgeItem], rubric: Rubric, settings: Recipe, folder: Run
) -> tuple[JudgeClient, judge_runner.JudgeRun, float]:
    log = Journal(folder.path / FOLDER / journal.file_name(one.name, one.identity))
    start = time.monotonic()
    found = judge_runner.run_judge(one, items, rubric, settings.judge.seeds, log)
    return one, found, time.monotonic() - start


def _content(
    items: Sequence[JudgeItem],
    sittings: Sequence[tuple[JudgeClient, judge_runner.JudgeRun, float]],
    settings: Recipe,
    rubric: Rubric,
    title: str,
) -> dict[str, Any]:
    verdicts = [row for _, found, _ in sittings for row in found.rows]
    pairwise = any(item.pairwise for item in items)
    summarize = judge_pairs.summarize if pairwise else judge_scores.summarize
    return {
        "title": title,
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "command": command_line(),
        "version": __version__,
        "judges": [{"name": one.name, **one.identity} for one, _, _ in sittings],
        "seeds": list(settings.judge.seeds),
        "rubric": {"file": settings.judge.rubric, "fingerprint": rubric.fingerprint, "references": rubric.references},
        **summarize(verdicts, confidence_of(settings)),
        "costs": _costs([(found.costs, seconds) for _, found, seconds in sittings], settings),
        "shown": _shown(items, verdicts, pairwise),
    }


def _costs(parts: Sequence[tuple[Mapping[str, int], float]], settings: Recipe) -> dict[str, Any]:
    """Totals over judges; the price where the recipe has prices. Seconds are those of this run alone."""
    total = {name: sum(costs[name] for costs, _ in parts) for name in parts[0][0]}
    prices = settings.judge.input_price, settings.judge.output_price
    known = any(price is not None for price in prices)
    price = (total["read"] * (prices[0] or 0) + total["written"] * (prices[1] or 0)) / 1e6
    return {**total, "price": price if known else None, "seconds": sum(seconds for _, seconds in parts)}


def _shown(items: Sequence[JudgeItem], verdicts: Sequence[Mapping[str, Any]], pairwise: bool) -> dict[str, Any]:
    """The best and the worst answers with their texts, all models side by side, and what the judge wrote."""
    if pairwise:
        return {}
    by_place: dict[tuple[str, int], dict[str, JudgeItem]] = {}
    for item in items:
        by_place.setdefault((item.id, len(item.turns)), {})[item.model] = item
    replies = {(v["id"], v["turn"], v["model"]): v["reply"] for v in reversed(verdicts) if not v["control"]}
    found: dict[str, Any] = {}
    for name, rows in judge_scores.shown(verdicts).items():
        found[name] = [_row(row, by_place[row["id"], row["turn"]], replies) for row in rows]
    return found


def _row(row: Mapping[str, Any], items: Mapping[str, JudgeItem], replies: Mapping[Any, str]) -> dict[str, Any]:
    first = next(iter(items.values()))
    asked = [f"{turn.instruction}\n\n{turn.input}" if turn.input else turn.instruction for turn in first.turns]
    return {
        "id": row["id"],
        "turn": row["turn"],
        "prompt": "\n\n".join(asked),
        "reference": first.last.reference,
        "answers": [
            {
                "name": model,
                "response": item.last.responses[0],
                "score": row["scores"].get(model),
                "reply": replies.get((row["id"], row["turn"], model), ""),
            }
            for model, item in items.items()
        ],
    }


def _write(folder: Run, content: dict[str, Any]) -> None:
    folder.write(RESULT, content)
    folder.write("judge.md", judge_report.markdown(content))
    folder.write("judge.html", judge_report.html(content))
    say(judge_report.verdict(content))


def _items(models: Sequence[ModelResponses]) -> list[JudgeItem]:
    """Every answer of every model. Rows without one cannot be judged, which is said."""
    for line in lines(merge(change for model in models for change in model.changes)):
        warn(line)
    kept = []
    for model in response_comparison.named(models):
        rows = [row for row in model.rows if row.response is not None]
        if len(rows) < len(model.rows):
            warn(f"{len(model.rows) - len(rows):,} rows have no response of {model.name} and are not judged")
        kept.append(replace(model, rows=rows))
    return [
        JudgeItem(name, model.name, (_turn(row),))
        for model, names in zip(kept, _aligned(kept), strict=True)
        for name, row in zip(names, model.rows, strict=True)
    ]


def _turn(row: ResponseRow) -> JudgedTurn:
    instruction = row.instruction or row.prompt  # a run keeps the whole prompt only
    return JudgedTurn(instruction, (row.texts[0],), row.input or "", row.reference)


def _aligned(models: Sequence[ModelResponses]) -> list[list[str]]:
    """Ids under which the models' rows can be compared: that of the first model's row with the same prompt."""
    first: dict[tuple[str, int], str] = {}
    found = []
    for model in models:
        seen: Counter[str] = Counter()
        names = []
        for row in model.rows:
            place = row.prompt, seen[row.prompt]
            seen[row.prompt] += 1
            names.append(first.setdefault(place, row.id))
        found.append(names if len(set(names)) == len(names) else [row.id for row in model.rows])
    return found


def _drawn(items: Sequence[JudgeItem], settings: Recipe) -> list[JudgeItem]:
    """At most so many questions, with all models' answers to them."""
    names = list(dict.fromkeys(item.id for item in items))
    most = settings.judge.max_answers
    if most is None or most >= len(names):
        return list(items)
    kept = {names[place] for place in np.random.default_rng(settings.seed).permutation(len(names))[:most]}
    return [item for item in items if item.id in kept]


def _pairs(items: Iterable[JudgeItem]) -> Iterable[JudgeItem]:
    """Each two models' answers to one question, as one item."""
    by_place: dict[tuple[str, int], list[JudgeItem]] = {}
    for item in items:
        by_place.setdefault((item.id, len(item.turns)), []).append(item)
    if all(len(found) < 2 for found in by_place.values()):
        raise DataError(
            "no two models answered one question",
            expected="answers of two models",
            do="give a second file, or --response",
        )
    for found in by_place.values():
        for a, b in combinations(found, 2):
            turns = (
                replace(one, responses=(*one.responses, *other.responses))
                for one, other in zip(a.turns, b.turns, strict=True)
            )
            yield JudgeItem(a.id, PAIR.join([a.model, b.model]), tuple(turns))


def _folder(places: Sequence[Path], found: Sequence[Run], output: str | Path | None) -> Run:
    if output is not None:
        path = Path(output).expanduser()
    elif len(places) == 1 and found:
        return found[0]
    else:
        path = places[0].with_name(f"{places[0].name.split('.')[0]}-judged")
    path.mkdir(parents=True, exist_ok=True)
    return Run(path)


def _title(places: Sequence[Path]) -> str:
    return ", ".join(place.name for place in places)
