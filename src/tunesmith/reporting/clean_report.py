"""What reports say about test rows with a copy in train, and the scores without them. Pure functions, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.evaluation.clean_scores import FEWEST, CleanScores
from tunesmith.evaluation.intervals import Estimate
from tunesmith.reporting.format import directed, estimate, figure, in_a_sentence
from tunesmith.reporting.markdown import plain, table
from tunesmith.reporting.schema import MethodResult

FILE = "clean.json"
SHOWN = 2
"""Metrics that tables show where none are named, the first of the headline; a sentence shows one."""


def metrics(clean: CleanScores, names: Sequence[str] = ()) -> list[str]:
    """Return the metrics to show: those that are named, or the first of the headline."""
    return [name for name in names if name in clean.headline] or list(clean.headline)[:SHOWN]


def sentence(
    clean: CleanScores, headline: Mapping[str, Estimate], names: Sequence[str] = (), of: str = "test rows"
) -> str:
    """Return `accuracy 0.934; on the 412 test rows without a copy in train 0.917 [0.887, 0.940]`.

    headline: the scores of all test rows. of: what the rows are called, where they are others.
    """
    shown = [
        f"{in_a_sentence(name)} {figure(name, headline[name].value)}; on the {clean.rows:,} {of} without a copy in "
        f"train {estimate(name, clean.headline[name])}"
        for name in metrics(clean, names)[:1]
    ]
    return f"{leaks(clean, of)}: {shown[0]}" if shown else f"{leaks(clean, of)}; {few(clean)}"


def leaks(clean: CleanScores, of: str = "test rows") -> str:
    """Return `88 of 500 test rows have a copy in train (3 exact, 85 near)`."""
    numbers = {"exact": clean.exact, "normalised": clean.normalised, "near": clean.near}
    grades = ", ".join(f"{number:,} {grade}" for grade, number in numbers.items() if number)
    return f"{clean.copies:,} of {clean.rows + clean.copies:,} {of} have a copy in train ({grades})"


def few(clean: CleanScores) -> str:
    """Return why the clean part is not scored."""
    return f"the other {clean.rows:,} are fewer than {FEWEST} and are not scored" if clean.rows else "no other is left"


def note(clean: CleanScores) -> str:
    """Explain what the scores of the clean part mean, and what to do."""
    scored = "The scores below leave them out." if clean.headline else f"{few(clean)[0].upper()}{few(clean)[1:]}."
    return (
        f"{leaks(clean)}, whose answer a model can know by heart. {scored} split.leaks=remove takes the copies out of "
        "train; `tunesmith audit` shows them side by side."
    )


def rows(methods: Sequence[MethodResult], names: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table: each method's scores on all test rows and on the clean part."""
    (first, *_) = [method.clean for method in methods if method.clean is not None]
    shown = metrics(first, names)
    head = ["Method", *(title for name in shown for title in (f"{directed(name)}, all", f"{first.rows:,} clean rows"))]
    lines = []
    for method in methods:
        line = [method.name]
        for name in shown:
            clean = method.clean.headline.get(name) if method.clean else None
            line += [figure(name, method.scores.headline[name].value), estimate(name, clean)]
        lines.append(line)
    return head, lines


def of(methods: Sequence[MethodResult]) -> CleanScores | None:
    """Return the counts of the first method that has some; all have the same rows."""
    return next((method.clean for method in methods if method.clean is not None), None)


def markdown(methods: Sequence[MethodResult], names: Sequence[str] = ()) -> list[str]:
    """Return a note and a table where test rows leak."""
    clean = of(methods)
    if clean is None:
        return []
    parts = [note(clean)]
    if clean.headline:
        head, lines = rows(methods, names)
        parts.append(table(head, ([plain(name), *figures] for name, *figures in lines)))
    return parts
