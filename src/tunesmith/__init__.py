"""Fine-tune a text model and know whether it was worth it.

Every command is a function here: `tunesmith.train("recipe.yaml", overrides=["learning_rate=1e-4"])`. Functions are
imported at first use, so importing the package is quick.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "TextClassifier": "tunesmith.classifier",
    "chat": "tunesmith.pipeline.respond",
    "check": "tunesmith.pipeline.check",
    "compare": "tunesmith.pipeline.compare",
    "doctor": "tunesmith.pipeline.doctor",
    "evaluate": "tunesmith.pipeline.evaluate",
    "export": "tunesmith.pipeline.export",
    "init": "tunesmith.recipe.document",
    "judge": "tunesmith.pipeline.judge",
    "judge_scores": "tunesmith.pipeline.judge_scores",
    "merge": "tunesmith.pipeline.export",
    "predict": "tunesmith.pipeline.predict",
    "pseudo_label": "tunesmith.pipeline.pseudo_label",
    "quickstart": "tunesmith.pipeline.quickstart",
    "serve": "tunesmith.pipeline.serve",
    "sweep": "tunesmith.pipeline.sweep",
    "train": "tunesmith.pipeline.train",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
