"""`tunesmith judge`: have a judge score or compare the answers of runs or files, and report the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tunesmith import recipe as recipes, records
from tunesmith.console import say, warn
from tunesmith.data.rows import merge
from tunesmith.data.summary import lines
from tunesmith.endpoints.chat_client import ChatClient
from tunesmith.endpoints.journal import Journal, file_name
from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage
from tunesmith.errors import RecipeError
from tunesmith.evaluation import judge_pairs, judge_scores
from tunesmith.evaluation.judge_pairs import JudgePairs
from tunesmith.evaluation.judge_scores import JudgeScores, RankedTurn, Verdict
from tunesmith.judging.judge_prompts import JudgeItem, JudgeTurn, Rubric
from tunesmith.judging.judge_runner import JudgeRecord, JudgeRun, controls, pairs, run_judge
from tunesmith.pipeline import in_memory, instruction_runs, judge_models, multi_turn, response_comparison, run_report
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import base_model
from tunesmith.pipeline.response_comparison import ModelResponses, ResponseColumns
from tunesmith.recipe import Recipe, Source
from tunesmith.reporting import judge_report, notebook
from tunesmith.reporting.judge_schema import (
    JudgeClient,
    JudgeCosts,
    JudgePairReport,
    JudgeScoreReport,
    RubricSummary,
    ScoredAnswer,
    ScoredPrompt,
)
from tunesmith.reporting.notebook import ReportPage
from tunesmith.runs import Run

SECTIONS = ("judge", "evaluate", "seed", "model.dtype", "model.revision", "model.trust_remote_code")
"""The settings that judging uses; those of the model are for a `local` judge."""
FOLDER = "judgements"
RESULT = "judged.json"


@dataclass(frozen=True, repr=False)
class JudgeResult(ReportPage):
    """The report on what judges decided, and the folder that it was written to."""

    folder: Run
    report: JudgeScoreReport | JudgePairReport

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder.path / "judge.html"

    def __repr__(self) -> str:
        return f"{judge_report.headline(self.report)}\n\nreport: {self.page}"

    def _repr_html_(self) -> str:
        judges = ", ".join(judge.name for judge in self.report.judges)
        text = judge_report.headline(self.report)
        return notebook.card(f"Judged by {judges}", self.report.title, ((), ()), self.page, text=text)


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
    recipe: Source | None = None,
    judge_input: JudgeInput | None = None,
    output: str | Path | None = None,
    **settings: object,
) -> JudgeResult:
    """Have the answers of run directories or of files judged.

    settings: on top of `recipe`, or else of the recipe of the first run, as in `judge={"model": "llama3"}`; overrides:
    the same as `judge.model=llama3`.
    Everything is written to `output`: by default to the run where there is just one, or to a new folder beside the
    first file. After an interruption, the same call continues where it stopped.
    """
    if not sources:
        raise RecipeError("nothing to judge", do="give run directories, or files with answers")
    judge_input = judge_input or JudgeInput()
    paths = [in_memory.kept_path(source) for source in sources]
    runs = [run for path in paths if (run := response_comparison.as_run(path)) is not None]
    source = recipe or (runs[0].recipe if runs else {})
    chosen = recipes.load(source, [*overrides, *recipes.overrides_of(settings)], sections=SECTIONS)
    rubric = Rubric.load(chosen.judge.rubric, chosen.judge.references, chosen.judge.verbatim)
    if output is None and len(paths) == 1 and runs:
        folder = runs[0]
    else:
        beside = paths[0].with_name(f"{paths[0].name.split('.')[0]}-judged")
        folder = Run(beside if output is None else Path(output).expanduser())
        folder.path.mkdir(parents=True, exist_ok=True)
    items = _items(paths, runs, chosen, judge_input, folder)
    tests = controls(items, chosen.judge.controls, chosen.seed)
    judge_runs = []
    for client in judge_models.clients(chosen):
        journal = Journal(folder.path / FOLDER / file_name(client.name, client.identity), JudgeRecord)
        judge_run = run_judge(client, [*items, *tests], rubric, chosen.judge.seeds, journal, _prices(chosen))
        judge_runs.append((client, judge_run))
    report = _report(items, judge_runs, chosen, rubric, ", ".join(path.name for path in paths))
    folder.write(RESULT, records.dump(report))
    folder.write("judge.md", judge_report.markdown(report))
    folder.write("judge.html", judge_report.html(report))
    say(judge_report.headline(report))
    if folder.path in [run.path for run in runs]:
        run_report.write_run(folder)
    return JudgeResult(folder, report)


def _items(
    paths: Sequence[Path], runs: Sequence[Run], settings: Recipe, judge_input: JudgeInput, folder: Run
) -> list[JudgeItem]:
    """Return what is to be judged: at most `judge.max_answers` questions, with all models' answers to them.

    Rows without a response cannot be judged, and are counted in a warning.
    """
    if judge_input.questions:
        items = multi_turn.items(paths, judge_input.questions, judge_input.references, folder)
    else:
        models = [m for path in paths for m in response_comparison.read(path, judge_input.columns, graded=False)]
        if before := instruction_runs.shared_base(runs) if settings.evaluate.base else []:
            models.append(ModelResponses(base_model.NAME, str(runs[0].path), before))
        for line in lines(merge(change for model in models for change in model.changes)):
            warn(line)
        answered = []
        for model in response_comparison.named(models):
            rows = [row for row in model.rows if row.response is not None]
            if len(rows) < len(model.rows):
                warn(f"{len(model.rows) - len(rows):,} rows have no response of {model.name} and are not judged")
            answered.append(replace(model, rows=rows))
        items = [
            # A run keeps the whole prompt only.
            JudgeItem(
                row_id,
                (model.name,),
                (JudgeTurn(row.instruction or row.prompt, (row.texts[0],), row.input or "", row.reference),),
            )
            for model, ids in zip(answered, response_comparison.aligned_ids(answered), strict=True)
            for row_id, row in zip(ids, model.rows, strict=True)
        ]
    questions = list(dict.fromkeys(item.id for item in items))
    limit = settings.judge.max_answers
    if limit is not None and limit < len(questions):
        drawn = np.random.default_rng(settings.seed).permutation(len(questions))[:limit]
        kept = {questions[index] for index in drawn}
        items = [item for item in items if item.id in kept]
    return pairs(items) if judge_input.pairwise else items


def _report(
    items: Sequence[JudgeItem],
    judge_runs: Sequence[tuple[ChatClient, JudgeRun]],
    settings: Recipe,
    rubric: Rubric,
    title: str,
) -> JudgeScoreReport | JudgePairReport:
    verdicts = [verdict for _, run in judge_runs for verdict in run.verdicts]
    usage = TokenUsage.total(run.usage for _, run in judge_runs)
    kind: Callable[..., JudgeScoreReport | JudgePairReport]
    summary: JudgeScores | JudgePairs
    if any(item.pairwise for item in items):
        kind, summary, shown = JudgePairReport, judge_pairs.summarize(verdicts, confidence_of(settings)), {}
    else:
        kind, summary = JudgeScoreReport, judge_scores.summarize(verdicts, confidence_of(settings))
        shown = _shown(items, verdicts)
    return kind(
        title=title,
        judges=tuple(JudgeClient(name=client.name, **records.dump(client.identity)) for client, _ in judge_runs),
        seeds=settings.judge.seeds,
        rubric=RubricSummary(settings.judge.rubric, rubric.fingerprint, rubric.references, rubric.verbatim or None),
        costs=JudgeCosts(
            verdicts=len(verdicts),
            questions=sum(run.questions for _, run in judge_runs),
            tries=usage.requests,
            read=usage.prompt_tokens,
            written=usage.completion_tokens,
            price=usage.price(_prices(settings)),
            seconds=sum(run.seconds for _, run in judge_runs),
        ),
        shown=shown,
        **vars(summary),
    )


def _prices(settings: Recipe) -> TokenPrices:
    return TokenPrices(settings.judge.input_price, settings.judge.output_price)


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
        questions = ["\n\n".join(filter(None, (each.instruction, each.input))) for each in turns]
        if len(turns) > 1:
            questions = [f"Turn {number}: {question}" for number, question in enumerate(questions, 1)]
        return ScoredPrompt(row, turn, "\n\n".join(questions), turns[-1].reference, answers)

    best, worst = judge_scores.best_and_worst(verdicts)
    return {"best": tuple(map(scored, best)), "worst": tuple(map(scored, worst))}
