"""Responses worth reading: rows of several models that answered the same prompts, to read side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tunesmith.evaluation import text_overlap
from tunesmith.evaluation.intervals import Floats
from tunesmith.evaluation.response_pairs import ResponseComparison, Rows
from tunesmith.reporting.schema import SampleGroup, SampleResponse, SampleRow
from tunesmith.types import ResponseRow

SHOWN = 3
"""Rows of each kind."""
Group = tuple[str, list[int]]
"""A title, and row numbers."""


def choose(
    methods: Mapping[str, Rows], compared: ResponseComparison, best: str, base: str | None, seed: int
) -> list[SampleGroup]:
    """Return groups of answered rows; no row is in two of them.

    With several methods the rows where `best` gains and loses most over `base` (without one, over the method that is
    last), in loss, or where there are no losses in `closeness`; of one method its likeliest and unlikeliest
    references. Then the responses of `best` that are most and least like their references, and some rows drawn with
    the seed.
    """
    places = [
        i
        for i, rows in enumerate(zip(*methods.values(), strict=True))
        if all(row.learned != 0 and row.response is not None for row in rows)
    ]
    if not places:
        return []
    closeness = {
        name: text_overlap.each(text_overlap.tabulate([rows[i].texts for i in places]))[compared.closeness]
        for name, rows in methods.items()
    }
    groups = _extremes(methods, compared, places, (best, base), closeness)
    if len(methods) == 1 or compared.decided_by == "loss":
        taken = {i for _, members in groups for i in members}
        left = [(-value, i) for value, i in zip(closeness[best].tolist(), places, strict=True) if i not in taken]
        ranked = [i for _, i in sorted(left)]
        top = ranked[:SHOWN]
        groups.append((f"Answers of {best} that are most like the reference", top))
        groups.append(("Answers that are least like it", [i for i in reversed(ranked) if i not in top][:SHOWN]))
    taken = {i for _, members in groups for i in members}
    left_over = [i for i in places if i not in taken]
    if left_over:
        generator = np.random.Generator(np.random.PCG64(seed))
        drawn = generator.choice(left_over, min(SHOWN, len(left_over)), replace=False)
        groups.append(("Drawn at random", sorted(drawn.tolist())))
    row_numbers = {place: number for number, place in enumerate(places)}

    def side_by_side(place: int) -> SampleRow:
        answers = tuple(
            SampleResponse(
                name=name,
                loss=_row_loss(row, compared.unit) if compared.unit else None,
                closeness=float(closeness[name][row_numbers[place]]),
                response=row.response,
                tokens=row.tokens,
                ended=row.ended,
            )
            for name, row in ((name, rows[place]) for name, rows in methods.items())
        )
        first = next(iter(methods.values()))[place]
        return SampleRow(first.id, first.prompt, first.reference, answers)

    return [SampleGroup(title, tuple(map(side_by_side, members))) for title, members in groups if members]


def _extremes(
    methods: Mapping[str, Rows],
    compared: ResponseComparison,
    places: Sequence[int],
    pair: tuple[str, str | None],
    closeness: Mapping[str, Floats],
) -> list[Group]:
    """Where the best method gains and loses most over the other; of one method alone the ends of its losses."""
    best, base = pair
    losses, unit = compared.losses, compared.unit
    order = losses or {name: -float(values_N.mean()) for name, values_N in closeness.items()}
    other = base or max((name for name in methods if name != best), key=order.__getitem__, default=None)
    if unit:
        worse = {
            i: _row_loss(methods[best][i], unit) - (_row_loss(methods[other][i], unit) if other else 0) for i in places
        }
        titles = (f"Where {best} lowers the loss of {other} most", f"Where {best} raises the loss of {other} most")
    elif other:
        worse = dict(zip(places, (closeness[other] - closeness[best]).tolist(), strict=True))
        titles = (f"Where {best} comes closer than {other} most", f"Where {other} comes closer than {best} most")
    else:
        return []
    ranked = sorted(places, key=worse.__getitem__)
    top = [i for i in ranked if not other or worse[i] < 0][:SHOWN]
    bottom = [i for i in reversed(ranked) if (not other or worse[i] > 0) and i not in top][:SHOWN]
    return list(zip(titles if other else ("Lowest loss", "Highest loss"), (top, bottom), strict=True))


def _row_loss(row: ResponseRow, unit: str) -> float:
    return (row.loss or 0.0) / max(1, (row.learned or 0) if unit == "token" else len(row.texts[1]))
