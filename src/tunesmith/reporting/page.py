"""HTML pages from the templates beside this module: self-contained, without scripts or requests to the outside."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tunesmith import records
from tunesmith.reporting import curve_report, format, prediction_notes, price_report, word_marks

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

FILTERS = (
    *("metric", "points", "signed", "chance", "p_value", "percent", "share", "level", "seconds", "count", "counted"),
    *("megabytes", "training", "trained", "figure", "interval", "quantity", "signed_figure", "signed_estimate"),
    *("estimate", "in_a_sentence", "predicted", "value"),
)
"""Functions of `format` that templates use as filters."""


def render(template: str, **values: Any) -> str:
    """Return the page that `template` makes of `values`; every text in them is escaped."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> SandboxedEnvironment:
    """Texts are escaped, unknown names are errors, and only what is given here can be called."""
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    from tunesmith.reporting import charts

    environment = SandboxedEnvironment(
        loader=PackageLoader("tunesmith", "reporting/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fields"] = records.dump
    environment.filters.update({name: getattr(format, name) for name in FILTERS})
    environment.globals.update(charts=charts, names=format.NAMES, lower_is_better=format.LOWER_IS_BETTER)
    reports = {"prediction_notes": prediction_notes, "price_report": price_report, "curve_report": curve_report}
    environment.globals.update(pieces=word_marks.pieces, **reports)
    return environment
