"""A trained run, as Python code and notebooks use it: its scores, predictions on new data, and its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tunesmith import recipe as recipes, runs
from tunesmith.data import frames
from tunesmith.errors import RunError, TunesmithError
from tunesmith.pipeline import leaked_rows, new_data
from tunesmith.pipeline.commands.evaluate import ComparedScores, evaluate
from tunesmith.pipeline.commands.predict import from_texts, predict, predict_texts
from tunesmith.pipeline.fitting.base_model import RunScores
from tunesmith.pipeline.prediction_stream import PredictionSettings
from tunesmith.pipeline.task_table import Scores, scores_of
from tunesmith.reporting import clean_report, format, notebook, terminal
from tunesmith.reporting.notebook import ReportPage
from tunesmith.runs import Run

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

ROW = "tunesmith: row"
"""The column that says which row of a table each row was, where some may be left out."""


class TrainedRun(Run, ReportPage):
    """A run directory with the results of a training.

    `scores`, `predict` and `evaluate` are the commands of these names; `model` is the folder of the trained model, and
    `finished` what training was like: `finished.costs.train_seconds`, `finished.validation`.
    """

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def scores(self) -> Scores:
        """The scores of the test split: `run.scores.headline["accuracy"]` has a `value`, and the ends `low` and `high`
        of its confidence interval.

        Raises RunError where the run was not tested: there is no test split, or `skip_test` left it alone.
        """
        scores = scores_of(self)
        if scores is None:
            status, reason = self.manifest.state()
            found = "finished without a test" if status == "finished" else f"{status}: {reason}".removesuffix(": ")
            do = "score it on labelled data: run.evaluate(data)"
            raise RunError(f"{self.path} has no scores", expected="a run that was tested", found=found, do=do)
        return scores

    @overload
    def predict(self, texts: pl.DataFrame | pl.LazyFrame | pl.Series, **options: Any) -> pl.DataFrame: ...

    @overload
    def predict(self, texts: object = (), **options: Any) -> pd.DataFrame: ...

    def predict(
        self,
        texts: object = (),
        *,
        text_pairs: object = (),
        source: object = None,
        top_k: int = 1,
        engine: str = "auto",
        **settings: object,
    ) -> Any:
        """Predict some texts, or every row of a table or file, and return a DataFrame with a row for each.

        texts: a string, or a list, series or array of strings, with `text_pairs` where the run learned pairs; or a
        table: a pandas or polars DataFrame, an Arrow table, a `datasets.Dataset`, a list of dicts or a dict of lists.
        source: instead, a path or name; a `pathlib.Path` may also stand in the place of texts. settings: as in
        `tunesmith.predict`, such as `text_column="review"`.

        The DataFrame has the columns of the data, and `predicted_label` and `probability`; with `top_k` > 1 also
        `probabilities`, which maps the best labels to theirs. A multilabel run has `predicted_labels` and
        `probabilities`; a regression run `predicted_value`; an instruction run `prompt`, `response`, `tokens` (their
        number) and `ended` (whether the model ended the response itself). What the recipe decides (`decide`) adds
        `abstained` and `label_set`. It is of polars for data of polars, else of pandas, with the index of the data;
        rows that `data.on_bad_rows="drop"` leaves out are not in it. Without pandas, `tunesmith.predict` returns the
        same as dicts.

        Raises DataError for texts or rows that cannot be predicted.
        """
        if isinstance(texts, Path):
            source, texts = texts, ()
        library = frames.library_of(texts)
        chosen = PredictionSettings(tuple(recipes.overrides_of(settings)), top_k, engine)
        options: dict[str, Any] = {"text_pairs": text_pairs, "top_k": top_k, "engine": engine, **settings}
        if source is not None:
            return frames.data_frame(frames.columns(predict(self, texts, source=source, **options)), library)
        if not (table := frames.rows(texts)):
            examples = from_texts(frames.texts(texts), frames.texts(text_pairs))
            rows = predict_texts(self, examples, chosen, of_source=True)
            kept = list(range(len(rows)))
        else:
            drops = new_data.settings(self.recipe, None, chosen.overrides).data.on_bad_rows == "drop"
            given = [{**row, ROW: number} for number, row in enumerate(table)] if drops else table
            rows = predict(self, given, **options)
            kept = [row.pop(ROW) if drops else number for number, row in enumerate(rows)]
            # dates and the like as they were given, not as files have them
            rows = [
                row | {str(name): cell for name, cell in table[n].items()} for n, row in zip(kept, rows, strict=True)
            ]
        if not table or not any("id" in row for row in table):
            rows = [{name: cell for name, cell in row.items() if name != "id"} for row in rows]
        return frames.data_frame(frames.columns(rows), library, frames.index_of(texts, kept))

    def evaluate(self, data: object, *, engine: str = "torch", **settings: object) -> Scores:
        """Predict labelled data, a path or a table, and return the scores, typed as `scores` is.

        settings: where the data differs from the training data, such as `label_column="rating"`, and `slices`, columns
        whose values are scored one by one. engine: `torch`, or `onnx`, `onnx-int8` or `openvino` where the run was
        exported to it. Predictions and scores are kept in the run. Raises DataError for rows without a label, and
        RunError for labels that the run does not know.
        """
        scores = evaluate(self.path, data=data, overrides=recipes.overrides_of(settings), engine=engine)
        assert not isinstance(scores, ComparedScores)  # of one run
        return scores

    def summary(self) -> str:
        """Return what the run is and its scores as text. Raises RunError where its files are damaged."""
        manifest, scores = self.manifest, scores_of(self)
        lines = [f"{manifest.name}: {manifest.description}"]
        if scores is not None:
            lines.append(describe_scores(scores))
            if (clean := leaked_rows.scores_of(self)) is not None:
                lines.append(clean_report.sentence(clean, scores.headline))
        status, reason = manifest.state()
        if status != "finished":
            lines.append(f"{status}: {reason}".removesuffix(": "))
        if status in ("interrupted", "failed"):
            lines.append(f"resume: tunesmith train --resume {self.path}")
        if (notes := getattr(manifest, "notes", None)) and notes.accepted:
            lines.append(f"accepted: {notes.accepted}")
        return "\n".join([*lines, f"run: {self.path}"])

    def __repr__(self) -> str:
        try:
            return self.summary()
        except (TunesmithError, OSError) as error:  # a prompt should show damaged runs, too
            return f"{type(self).__name__}({str(self.path)!r}): {str(error).splitlines()[0]}"

    def _repr_html_(self) -> str:
        try:
            manifest, scores = self.manifest, scores_of(self)
        except (TunesmithError, OSError) as error:
            return notebook.card(str(self.path), str(error).splitlines()[0], ((), ()), self.page)
        confidence = "" if scores is None else f"{format.level(scores.confidence)} interval"
        status, reason = manifest.state()
        unfinished = "" if status == "finished" else f"{status}: {reason}".removesuffix(": ")
        tested = (
            ""
            if scores is None
            else f"{format.counted(scores.rows, 'test row')} of {runs.data_name(manifest.data.source)}"
        )
        return notebook.card(
            manifest.name,
            "; ".join(filter(None, [manifest.description, tested, unfinished])),
            (("metric", "score", confidence), [] if scores is None else _score_rows(scores)),
            self.page,
        )


def load_run(path: str | Path) -> TrainedRun:
    """Return the run in a folder that `tunesmith.train` or the command line wrote. Raises RunError where there is none.

    Files that have changed since are refused when they are read.
    """
    return TrainedRun(runs.find(path).path)


def _score_rows(scores: Scores) -> list[tuple[str, str, str]]:
    """Return each headline metric, its value and its interval."""
    return [
        (format.directed(name), format.figure(name, score.value), format.interval(name, score))
        for name, score in scores.headline.items()
    ]


def describe_scores(scores: Scores | ComparedScores) -> str:
    """Return the result of `evaluate` as text: one model's scores, or several models' side by side and the verdict."""
    from tunesmith.evaluation.metrics import ClassificationScores
    from tunesmith.evaluation.multilabel_scores import MultilabelScores
    from tunesmith.evaluation.value_scores import RegressionScores

    if isinstance(scores, ComparedScores):
        tables = [terminal.figures(scores.models, scores.pairs), terminal.differing_settings(scores.differing or ())]
        return "\n\n".join([*filter(None, tables), scores.verdict])
    if isinstance(scores, RunScores) and scores.base is not None:
        pair = scores.base.pair
        return terminal.figures({pair.a: scores, pair.b: scores.base}, [pair])
    if not isinstance(scores, ClassificationScores | MultilabelScores | RegressionScores):
        return terminal.figures({"score": scores}, [])
    none = scores.invalid if isinstance(scores, ClassificationScores) else 0
    invalid = f", {none:,} of them given no label" if none else ""
    without = getattr(scores, "without_probabilities", None)
    invalid += f", {without:,} without probabilities" if without else ""
    lines = [f"on {scores.rows:,} rows{invalid}, with {100 * scores.confidence:g}% intervals:"]
    width = max(18, *map(len, scores.headline))
    for name, score in scores.headline.items():
        lines.append(f"  {name:{width}} {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]")
    return "\n".join(lines)
