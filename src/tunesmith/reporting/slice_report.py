"""What reports say about slices of the test rows. Pure functions, no files."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.evaluation.slices import FEWEST, SliceScore, SliceScores
from tunesmith.reporting.format import NAMES, QUANTITIES, chance, counted, directed, estimate, figure, p_value
from tunesmith.reporting.markdown import plain, table
from tunesmith.reporting.schema import MethodResult

FILE = "slices.json"
LISTED = 20
"""Slices in Markdown; the page has all."""


def worst(scores: SliceScores) -> str:
    """Return a sentence on the worst slice that is large enough to be tested."""
    tested = [each for each in scores.slices if each.p is not None]
    if not tested:
        return f"slices: none of {len(scores.slices)} has {FEWEST} rows and others to compare with"
    first, name = tested[0], scores.metric
    metric = NAMES[name] if name in QUANTITIES else NAMES[name].lower()
    holm = f", after Holm's correction for {scores.tested} slices" if scores.tested > 1 else ""
    return (
        f"slices: worst is {title(first)}: {metric} {estimate(name, first.estimate)} on {counted(first.rows, 'row')}, "
        f"{figure(name, first.rest)} on the others ({p_value(first.p_holm)}{holm})"
    )


def title(each: SliceScore) -> str:
    """Return what a slice is called: `source = web`."""
    return f"{each.column} = {each.value}"


def note(scores: SliceScores) -> str:
    """Explain the order, the test and what several tests mean."""
    few = sum(each.rows < FEWEST for each in scores.slices)
    last = (
        f" {counted(few, 'slice')} of fewer than {FEWEST} rows, marked *, stand last and are not tested." if few else ""
    )
    return (
        f"Worst first.{last} p says how often as many rows drawn at random would score as far from the whole. Of many "
        f"slices some differ by chance alone: judge by p (Holm), corrected for {counted(scores.tested, 'test')}. A "
        "slice may also differ because its labels do."
    )


def markdown(methods: Sequence[MethodResult]) -> list[str]:
    """Return a table of slices for each method that has some."""
    parts = []
    for method in methods:
        scores = method.slices
        if scores is None:
            continue
        several = f" of {plain(method.name)}" if len(methods) > 1 else ""
        rows = [
            [
                plain(title(each)) + (" \\*" if each.rows < FEWEST else ""),
                f"{each.rows:,}",
                estimate(scores.metric, each.estimate),
                figure(scores.metric, each.rest),
                chance(each.p),
                chance(each.p_holm),
            ]
            for each in scores.slices[:LISTED]
        ]
        head = ["Slice", "Rows", directed(scores.metric), "Other rows", "p", "p (Holm)"]
        parts += [f"## Slices{several}", table(head, rows), note(scores)]
        if len(scores.slices) > LISTED:
            parts.append(f"{LISTED} of {len(scores.slices)} slices.")
    return parts
