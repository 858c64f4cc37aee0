"""`tunesmith predict`: what a finished run says of texts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import runs
from tunesmith.errors import DataError, RecipeError
from tunesmith.pipeline import respond
from tunesmith.pipeline.methods import load_result
from tunesmith.runs import Run
from tunesmith.types import Example, Prediction

Row = dict[str, Any]


def predict(
    run: str | Path | Run,
    texts: Sequence[str] = (),
    *,
    text_pairs: Sequence[str] = (),
    source: str | None = None,
    top_k: int = 1,
) -> list[Row]:
    """What a run says of some texts, or of every row of a data source.

    Gives rows `{"id", "text", "label", "score"}`, with `top_k` > 1 also `"scores"`: the best labels with their
    probabilities, best first. A row whose text is missing is an error unless the run's data.on_bad_rows is `drop`.
    Of an instruction run the texts are prompts, and the rows `{"id", "prompt", "response", "tokens", "ended"}`.
    """
    found = run if isinstance(run, Run) else runs.find(run)
    if source and texts:
        raise RecipeError("texts and a data source exclude each other", do="give one of them")
    if found.recipe.task == "instruction":
        return respond.respond(found, texts, source=source)
    examples = respond.new_rows(found.recipe, source) if source else _from_texts(texts, text_pairs)
    _check_pairs(examples, found)
    predictor = load_result(found)
    if not 1 <= top_k <= len(predictor.labels):
        raise RecipeError(f"top_k is {top_k}", expected=f"1 to {len(predictor.labels)}, the number of labels")
    predictions = predictor.predict(examples)
    return [
        _row(example, prediction, predictor.labels, top_k)
        for example, prediction in zip(examples, predictions, strict=True)
    ]


def check_output(path: Path) -> None:
    """Refuse an output file that could not be written, before the work and not after it."""
    if path.suffix not in (".csv", ".jsonl", ".json"):
        raise RecipeError(f"cannot write {path}", expected="a name that ends in .csv or .jsonl; answers also in .json")
    if not path.parent.is_dir():
        raise RecipeError(f"cannot write {path}", found=f"no folder {path.parent}", do="make the folder first")


def table(rows: Sequence[Row], suffix: str) -> str:
    """Prediction rows as CSV or JSON Lines."""
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out = io.StringIO()
    flat = [{k: v for k, v in row.items() if k != "scores"} | _flat(row.get("scores", {})) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def _flat(scores: dict[str, float]) -> dict[str, Any]:
    ranked = enumerate(scores.items(), 1)
    return {
        key: value
        for rank, (label, score) in ranked
        for key, value in ((f"label_{rank}", label), (f"score_{rank}", score))
    }


def _row(example: Example, prediction: Prediction, labels: Sequence[str], top_k: int) -> Row:
    row: Row = {"id": example.id, "text": example.text}
    if example.text_pair is not None:
        row["text_pair"] = example.text_pair
    row |= {"label": prediction.label, "score": max(prediction.probabilities)}
    if top_k > 1:
        ranked = sorted(zip(labels, prediction.probabilities, strict=True), key=lambda pair: -pair[1])
        row["scores"] = dict(ranked[:top_k])
    return row


def _from_texts(texts: Sequence[str], pairs: Sequence[str]) -> list[Example]:
    if isinstance(texts, str) or isinstance(pairs, str):
        raise DataError("texts is one string", expected="a list of texts", do="write [text]")
    if not texts:
        raise DataError("nothing to predict", do="give texts (--text) or a data source (--data)")
    if pairs and len(pairs) != len(texts):
        raise DataError(f"{len(texts)} texts but {len(pairs)} second texts", do="give one second text for each text")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(f"text {number} is empty", do="give a text with at least one word")
    seconds: Sequence[str | None] = pairs or [None] * len(texts)
    return [Example(f"text:{n}", text, pair) for n, (text, pair) in enumerate(zip(texts, seconds, strict=True), 1)]


def _check_pairs(examples: Sequence[Example], run: Run) -> None:
    trained = run.recipe.data.text_pair is not None
    if examples and (examples[0].text_pair is not None) != trained:
        expected = "two texts" if trained else "one text"
        raise DataError(
            f"{run.path} was trained on {expected} a row", do="give --text-pair" if trained else "leave --text-pair out"
        )
