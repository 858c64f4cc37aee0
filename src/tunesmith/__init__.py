"""Fine-tune a text model and know whether it was worth it.

Every command is a function here, and takes DataFrames wherever it takes a path:

    run = tunesmith.train(reviews, text_column="review", label_column="stars", method="linear")
    run.predict(new_reviews)

    comparison = tunesmith.compare(reviews, text_column="review", label_column="stars")
    comparison.table()

Functions are imported at first use, so importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see
    from tunesmith.errors import TunesmithError as TunesmithError
    from tunesmith.estimators import (
        TextClassifier as TextClassifier,
        TextMultilabelClassifier as TextMultilabelClassifier,
        TextRegressor as TextRegressor,
    )
    from tunesmith.pipeline.commands.apply_review import apply_review as apply_review
    from tunesmith.pipeline.commands.audit import Audit as Audit, audit as audit, load_audit as load_audit
    from tunesmith.pipeline.commands.chat import chat as chat
    from tunesmith.pipeline.commands.check import check as check
    from tunesmith.pipeline.commands.compare import (
        Comparison as Comparison,
        compare as compare,
        load_comparison as load_comparison,
    )
    from tunesmith.pipeline.commands.distill import distill as distill
    from tunesmith.pipeline.commands.doctor import doctor as doctor
    from tunesmith.pipeline.commands.evaluate import evaluate as evaluate
    from tunesmith.pipeline.commands.explain import explain as explain
    from tunesmith.pipeline.commands.export import export as export, merge as merge
    from tunesmith.pipeline.commands.judge import judge as judge
    from tunesmith.pipeline.commands.predict import (
        predict as predict,
        predict_rows as predict_rows,
        write_predictions as write_predictions,
    )
    from tunesmith.pipeline.commands.pseudo_label import pseudo_label as pseudo_label
    from tunesmith.pipeline.commands.quickstart import quickstart as quickstart
    from tunesmith.pipeline.commands.serve import serve as serve
    from tunesmith.pipeline.commands.sweep import sweep as sweep
    from tunesmith.pipeline.commands.train import train as train
    from tunesmith.pipeline.external_scores import judge_scores as judge_scores
    from tunesmith.pipeline.trained_run import TrainedRun as TrainedRun, load_run as load_run
    from tunesmith.recipe.document import init as init

__version__ = "0.2.0"

_HOMES = {
    "Audit": "tunesmith.pipeline.commands.audit",
    "Comparison": "tunesmith.pipeline.commands.compare",
    "TextClassifier": "tunesmith.estimators",
    "TextMultilabelClassifier": "tunesmith.estimators",
    "TextRegressor": "tunesmith.estimators",
    "TrainedRun": "tunesmith.pipeline.trained_run",
    "TunesmithError": "tunesmith.errors",
    "apply_review": "tunesmith.pipeline.commands.apply_review",
    "audit": "tunesmith.pipeline.commands.audit",
    "chat": "tunesmith.pipeline.commands.chat",
    "check": "tunesmith.pipeline.commands.check",
    "compare": "tunesmith.pipeline.commands.compare",
    "distill": "tunesmith.pipeline.commands.distill",
    "doctor": "tunesmith.pipeline.commands.doctor",
    "evaluate": "tunesmith.pipeline.commands.evaluate",
    "explain": "tunesmith.pipeline.commands.explain",
    "export": "tunesmith.pipeline.commands.export",
    "init": "tunesmith.recipe.document",
    "judge": "tunesmith.pipeline.commands.judge",
    "judge_scores": "tunesmith.pipeline.external_scores",
    "load_audit": "tunesmith.pipeline.commands.audit",
    "load_comparison": "tunesmith.pipeline.commands.compare",
    "load_run": "tunesmith.pipeline.trained_run",
    "merge": "tunesmith.pipeline.commands.export",
    "predict": "tunesmith.pipeline.commands.predict",
    "predict_rows": "tunesmith.pipeline.commands.predict",
    "pseudo_label": "tunesmith.pipeline.commands.pseudo_label",
    "quickstart": "tunesmith.pipeline.commands.quickstart",
    "serve": "tunesmith.pipeline.commands.serve",
    "sweep": "tunesmith.pipeline.commands.sweep",
    "train": "tunesmith.pipeline.commands.train",
    "write_predictions": "tunesmith.pipeline.commands.predict",
}
"""Where what is imported at first use is defined; the imports above, for type checkers, are the same."""

__all__ = ["__version__", *sorted(_HOMES)]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
