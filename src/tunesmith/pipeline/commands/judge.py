"""`tunesmith judge`: have a judge score or compare the answers of runs or files, and report the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith import recipe as recipes, records
from tunesmith.console import say, warn
from tunesmith.data.rows import merge
from tunesmith.data.summary import lines
from tunesmith.endpoints.client import ChatClient
from tunesmith.endpoints.journal import Journal, file_name
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.errors import DataError, RecipeError
from tunesmith.evaluation import judge_pairs, judge_scores
from tunesmith.evaluation.judge_scores import RankedTurn, Verdict
from tunesmith.judging.judge_prompts import JudgeItem, JudgeTurn, Rubric
from tunesmith.judging.judge_runner import JudgeRecord, JudgeRun, controls, run_judge
from tunesmith.pipeline import (
    in_memory,
    instruction_runs,
    judge_models,
    multi_turn,
    response_comparison,
    run_report,
)
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.response_comparison import ModelResponses, ResponseColumns
from tunesmith.recipe import Recipe
from tunesmith.reporting import judge_report
from tunesmith.reporting.schema import (
    JudgeCosts,
    JudgePairReport,
    JudgeScoreReport,
    RubricSummary,
    ScoredAnswer,
    ScoredPrompt,
)
from tunesmith.runs import Run
from tunesmith.types import ResponseRow

SECTIONS = ("judge", "evaluate", "seed", "model.dtype", "model.revision", "model.trust_remote_code")
"""The settings that judging uses; those of the model are for a `local` judge."""
FOLDER = "judgements"
RESULT = "judged.json"


@dataclass(frozen=True)
class JudgeResult:
    """The report on what judges decided, and the folder that it was written to."""

    folder: Run
    report: JudgeScoreReport | JudgePairReport

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder.path / "judge.html"


@dataclass(frozen=True)
class JudgeInput:
    """What is judged: columns of a file, or answers to multi-turn questions."""

    columns: ResponseColumns = field(default_factory=ResponseColumns)
    """Names of a file's columns, where they differ from the usual ones."""
    questions: str | None = None
    """A file such as MT-bench's question.jsonl."""
    references: str | None = None
    """A file of reference answers to the questions."""
    pairwise: bool = False
    """Compare each two models instead of scoring each."""


def judge(
    *sources: object,
    overrides: Sequence[str] = (),
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    judge_input: JudgeInput | None = None,
    output: str | Path | None = None,
) -> JudgeResult:
    """Have the answers of run directories or of files judged.

    overrides: settings, such as `judge.model=llama3`, on top of `recipe`, or else of the recipe of the first run.
    Everything is written to `output`: by default to the run where there is just one, or to a new folder beside the
    first file. After an interruption, the same call continues where it stopped.
    """
    if not sources:
        raise RecipeError("nothing to judge", do="give run directories, or files with answers")
    judge_input = judge_input or JudgeInput()
    paths = [in_memory.kept_path(source) for source in sources]
    found = [run for path in paths if (run := response_comparison.as_run(path)) is not None]
    source = recipe or (found[0].recipe if found else {})
    settings = recipes.load(source, overrides, sections=SECTIONS)
    rubric = Rubric.load(settings.judge.rubric, settings.judge.references)
    folder = _folder(paths, found, output)
    if judge_input.questions:
        items = multi_turn.items(paths, judge_input.questions, judge_input.references, folder)
    else:
        before = instruction_runs.shared_base(found) if settings.evaluate.base else []
        own = [model for path in paths for model in response_comparison.read(path, judge_input.columns, graded=False)]
        items = _items([*own, *([ModelResponses(base_model.NAME, str(found[0].path), before)] if before else [])])
    items = _sampled(items, settings)
    items = list(_pairs(items)) if judge_input.pairwise else items
    tests = controls(items, settings.judge.controls, settings.seed)
    judge_runs = []
    for client in judge_models.clients(settings):
        journal = Journal(folder.path / FOLDER / file_name(client.name, client.identity), JudgeRecord)
        judge_runs.append((client, run_judge(client, [*items, *tests], rubric, settings.judge.seeds, journal)))
    report = _report(items, judge_runs, settings, rubric, ", ".join(path.name for path in paths))
    folder.write(RESULT, records.dump(report))
    folder.write("judge.md", judge_report.markdown(report))
    folder.write("judge.html", judge_report.html(report))
    say(judge_report.headline(report))
    if folder.path in [run.path for run in found]:
        run_report.write_run(folder)
    return JudgeResult(folder, report)


def _report(
    items: Sequence[JudgeItem],
    judge_runs: Sequence[tuple[ChatClient, JudgeRun]],
    settings: Recipe,
    rubric: Rubric,
    title: str,
) -> JudgeScoreReport | JudgePairReport:
    verdicts = [verdict for _, run in judge_runs for verdict in run.verdicts]
    usage = TokenUsage.total(run.usage for _, run in judge_runs)
    about: dict[str, Any] = {
        "title": title,
        "judges": tuple({"name": client.name, **client.identity} for client, _ in judge_runs),
        "seeds": settings.judge.seeds,
        "rubric": RubricSummary(settings.judge.rubric, rubric.fingerprint, rubric.references),
        "costs": JudgeCosts(
            verdicts=len(verdicts),
            questions=sum(run.questions for _, run in judge_runs),
            tries=usage.requests,
            read=usage.prompt_tokens,
            written=usage.completion_tokens,
            price=usage.price(settings.judge.input_price, settings.judge.output_price),
            seconds=sum(run.seconds for _, run in judge_runs),
        ),
    }
    if any(item.pairwise for item in items):
        return JudgePairReport(**about, **vars(judge_pairs.summarize(verdicts, confidence_of(settings))))
    scores = judge_scores.summarize(verdicts, confidence_of(settings))
    return JudgeScoreReport(**about, **vars(scores), shown=_shown(items, verdicts))


def _shown(items: Sequence[JudgeItem], verdicts: Sequence[Verdict]) -> dict[str, tuple[ScoredPrompt, ...]]:
    """Return the best and the worst answers with their texts, all models side by side, and the judge's replies."""
    by_turn: dict[tuple[str, int], dict[str, JudgeItem]] = {}
    for item in items:
        by_turn.setdefault((item.id, len(item.turns)), {})[item.models[0]] = item
    replies = {(v.id, v.turn, v.models[0]): v.reply for v in reversed(verdicts) if not v.control}

    def scored(ranked: RankedTurn) -> ScoredPrompt:
        row, turn = ranked.id, ranked.turn
        answers = tuple(
            ScoredAnswer(model, item.last.responses[0], ranked.scores.get(model), replies.get((row, turn, model), ""))
            for model, item in by_turn[row, turn].items()
        )
        turns = next(iter(by_turn[row, turn].values())).turns
        texts = [text for each in turns for text in (each.instruction, each.input) if text]
        return ScoredPrompt(row, turn, "\n\n".join(texts), turns[-1].reference, answers)

    best, worst = judge_scores.best_and_worst(verdicts)
    return {"best": tuple(map(scored, best)), "worst": tuple(map(scored, worst))}


def _items(models: Sequence[ModelResponses]) -> list[JudgeItem]:
    """Return every response of every model; rows without one cannot be judged, and are counted in a warning."""
    for line in lines(merge(change for model in models for change in model.changes)):
        warn(line)
    kept = []
    for model in response_comparison.named(models):
        rows = [row for row in model.rows if row.response is not None]
        if len(rows) < len(model.rows):
            warn(f"{len(model.rows) - len(rows):,} rows have no response of {model.name} and are not judged")
        kept.append(replace(model, rows=rows))
    return [
        JudgeItem(name, (model.name,), (_turn(row),))
        for model, names in zip(kept, _aligned(kept), strict=True)
        for name, row in zip(names, model.rows, strict=True)
    ]


def _turn(row: ResponseRow) -> JudgeTurn:
    instruction = row.instruction or row.prompt  # a run keeps the whole prompt only
    return JudgeTurn(instruction, (row.texts[0],), row.input or "", row.reference)


def _aligned(models: Sequence[ModelResponses]) -> list[list[str]]:
    """Return row ids under which the models can be compared: that of the first model's row with the same prompt."""
    first: dict[tuple[str, int], str] = {}
    aligned = []
    for model in models:
        seen: Counter[str] = Counter()
        names = []
        for row in model.rows:
            place = row.prompt, seen[row.prompt]
            seen[row.prompt] += 1
            names.append(first.setdefault(place, row.id))
        aligned.append(names if len(set(names)) == len(names) else [row.id for row in model.rows])
    return aligned


def _sampled(items: Sequence[JudgeItem], settings: Recipe) -> list[JudgeItem]:
    """Return at most `judge.max_answers` questions, with all models' answers to them."""
    names = list(dict.fromkeys(item.id for item in items))
    limit = settings.judge.max_answers
    if limit is None or limit >= len(names):
        return list(items)
    kept = {names[index] for index in np.random.default_rng(settings.seed).permutation(len(names))[:limit]}
    return [item for item in items if item.id in kept]


def _pairs(items: Iterable[JudgeItem]) -> Iterable[JudgeItem]:
    """Yield each two models' answers to one question, as one item."""
    by_turn: dict[tuple[str, int], list[JudgeItem]] = {}
    for item in items:
        by_turn.setdefault((item.id, len(item.turns)), []).append(item)
    if all(len(same) < 2 for same in by_turn.values()):
        raise DataError(
            "no two models answered one question",
            expected="answers of two models",
            do="give a second file, or --response",
        )
    for same in by_turn.values():
        for a, b in combinations(same, 2):
            turns = (
                replace(first, responses=(*first.responses, *second.responses))
                for first, second in zip(a.turns, b.turns, strict=True)
            )
            yield JudgeItem(a.id, (*a.models, *b.models), tuple(turns))


def _folder(paths: Sequence[Path], found: Sequence[Run], output: str | Path | None) -> Run:
    if output is not None:
        path = Path(output).expanduser()
    elif len(paths) == 1 and found:
        return found[0]
    else:
        path = paths[0].with_name(f"{paths[0].name.split('.')[0]}-judged")
    path.mkdir(parents=True, exist_ok=True)
    return Run(path)
