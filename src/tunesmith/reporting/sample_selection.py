"""Answers worth reading: rows of several models that answered the same prompts, to lay side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tunesmith.evaluation import text_overlap
from tunesmith.evaluation.response_pairs import Figures, Rows
from tunesmith.types import ResponseRow

SHOWN = 3
"""Rows of each kind."""
Group = tuple[str, list[int]]
"""A title, and the places of rows."""


def choose(
    methods: Mapping[str, Rows], compared: Figures, best: str, base: str | None, seed: int
) -> list[dict[str, Any]]:
    """Groups of answered rows: {"title", "rows"}; no row stands in two of them.

    With several methods the rows where `best` gains and loses most over `base` (without one, over the method that is
    last), in loss, or where there are no losses in `closeness`; of one method its likeliest and unlikeliest
    references. Then the answers of `best` that are most and least like their references, and some rows drawn with the
    seed.
    """
    places = [
        i
        for i, rows in enumerate(zip(*methods.values(), strict=True))
        if all(row.learned != 0 and row.response is not None for row in rows)
    ]
    if not places:
        return []
    like = {
        name: text_overlap.each(text_overlap.tabulate([rows[i].texts for i in places]))[compared["closeness"]]
        for name, rows in methods.items()
    }
    groups = _extremes(methods, compared, places, (best, base), like)
    taken = {i for _, found in groups for i in found}
    closeness = [(float(one), i) for one, i in zip(like[best], places, strict=True) if i not in taken]
    if len(methods) == 1 or compared["decided_by"] == "loss":
        groups += _ends(
            closeness, f"Answers of {best} that are most like the reference", "Answers that are least like it"
        )
    taken = {i for _, found in groups for i in found}
    groups.append(("Drawn at random", _drawn([i for i in places if i not in taken], seed)))
    values = {name: dict(zip(places, map(float, found), strict=True)) for name, found in like.items()}
    return [
        {"title": title, "rows": [_side_by_side(methods, i, compared["unit"], values) for i in found]}
        for title, found in groups
        if found
    ]


def _extremes(
    methods: Mapping[str, Rows],
    compared: Figures,
    places: Sequence[int],
    pair: tuple[str, str | None],
    like: Mapping[str, Iterable[float]],
) -> list[Group]:
    """Where the best method gains and loses most over the other; of one method alone the ends of its losses."""
    best, base = pair
    losses, unit = compared["losses"], compared["unit"]
    order = losses if losses else {name: -float(np.mean(list(found))) for name, found in like.items()}
    other = base or max((name for name in methods if name != best), key=order.__getitem__, default=None)
    if not losses and other is None:
        return []
    if losses:
        worse = {
            i: _row_loss(methods[best][i], unit) - (_row_loss(methods[other][i], unit) if other else 0) for i in places
        }
        titles = (f"Where {best} lowers the loss of {other} most", f"Where {best} raises the loss of {other} most")
    else:
        worse = {i: float(b - a) for i, a, b in zip(places, like[best], like[str(other)], strict=True)}
        titles = (f"Where {best} comes closer than {other} most", f"Where {other} comes closer than {best} most")
    ranked = sorted(places, key=worse.__getitem__)
    top = [i for i in ranked if not other or worse[i] < 0][:SHOWN]
    bottom = [i for i in reversed(ranked) if (not other or worse[i] > 0) and i not in top][:SHOWN]
    return list(zip(titles if other else ("Lowest loss", "Highest loss"), (top, bottom), strict=True))


def _ends(values: Sequence[tuple[float, int]], most: str, least: str) -> list[Group]:
    ranked = [i for _, i in sorted(values, key=lambda pair: (-pair[0], pair[1]))]
    top = ranked[:SHOWN]
    return [(most, top), (least, [i for i in reversed(ranked) if i not in top][:SHOWN])]


def _drawn(places: Sequence[int], seed: int) -> list[int]:
    draw = np.random.Generator(np.random.PCG64(seed))
    found: list[int] = sorted(draw.choice(places, min(SHOWN, len(places)), replace=False).tolist()) if places else []
    return found


def _row_loss(row: ResponseRow, unit: str) -> float:
    return (row.loss or 0.0) / max(1, (row.learned or 0) if unit == "token" else len(row.texts[1]))


def _side_by_side(
    methods: Mapping[str, Rows], place: int, unit: str | None, like: Mapping[str, Mapping[int, float]]
) -> dict[str, Any]:
    first = next(iter(methods.values()))[place]
    answers = [
        {
            "name": name,
            "loss": _row_loss(rows[place], unit) if unit else None,
            "closeness": like[name][place],
            **{key: getattr(rows[place], key) for key in ("response", "tokens", "ended")},
        }
        for name, rows in methods.items()
    ]
    return {"id": first.id, "prompt": first.prompt, "reference": first.reference, "answers": answers}
