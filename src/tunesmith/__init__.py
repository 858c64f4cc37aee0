"""Fine-tune a text model and know whether it was worth it.

Every command is a function here: `tunesmith.train("recipe.yaml", overrides=["learning_rate=1e-4"])`. Functions are
imported at first use, so importing the package is quick.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "TextClassifier": "tunesmith.estimators",
    "TextMultilabelClassifier": "tunesmith.estimators",
    "TextRegressor": "tunesmith.estimators",
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

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
