"""The report on pseudo-labels: what was kept, what was not and why, and what a threshold costs. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.reporting import page
from tunesmith.reporting.charts import histogram, trade_off
from tunesmith.reporting.format import NOTHING, level, share
from tunesmith.reporting.markdown import plain, sign, table

Content = Mapping[str, Any]
"""What `pipeline.pseudo_label` makes."""


def html(content: Content) -> str:
    """One self-contained page."""
    pictures = [("Rows by agreement", "from 0 to 100%", histogram(content["histogram"], "Rows by agreement"))]
    if content["curve"]:
        drawn = trade_off(content["curve"], content["chosen"]["threshold"], "Precision over coverage")
        pictures.append(("Precision and coverage", "on the rows that have a label of their own", drawn))
    return page.render("pseudo_labels.html.j2", report=content, verdict=verdict(content), pictures=pictures)


def markdown(content: Content) -> str:
    """The same tables in Markdown."""
    reasons = [[plain(reason), f"{count:,}"] for reason, count in content["left_out"].items()]
    parts = [
        f"# Pseudo-labels: {plain(content['title'])}",
        f"**{plain(verdict(content))}**",
        table(["Rows", "Number"], [["read", f"{content['rows']:,}"], ["kept", f"{content['kept']:,}"], *reasons]),
    ]
    if content["curve"]:
        head = ["Threshold", "Kept", "Coverage", "Precision", f"{level(content['confidence'])} interval"]
        parts += ["## Precision and coverage", table(head, map(_point, content["curve"]))]
    return "\n\n".join([*parts, sign(content)]) + "\n"


def verdict(content: Content) -> str:
    """What was kept, and how much of it is right where that is known."""
    text = (
        f"{content['kept']:,} of {content['rows']:,} rows kept, at an agreement of at least "
        f"{share(content['threshold'])}."
    )
    chosen = content["chosen"]
    if chosen is None:
        return f"{text} No row has a label of its own, so how many are right is not known."
    if chosen["precision"] is None:
        return f"{text} None of the {content['labelled']:,} rows with a label of their own is among them."
    right = chosen["precision"]
    return (
        f"{text} {content['labelled']:,} rows have a label of their own: {share(chosen['coverage'])} of them are kept, "
        f"and of these {share(right['value'])} [{share(right['low'])}, {share(right['high'])}] are right."
    )


def _point(one: Mapping[str, Any]) -> list[str]:
    found = one["precision"]
    said = [share(found["value"]), f"[{share(found['low'])}, {share(found['high'])}]"] if found else [NOTHING] * 2
    return [f"{one['threshold']:.4g}", f"{one['kept']:,}", share(one["coverage"]), *said]
