"""The recipe: what a run does, completely."""

from tunesmith.recipe.load import dump, fields, load
from tunesmith.recipe.sections import (
    Adapter,
    Data,
    Engine,
    Evaluate,
    Generate,
    Linear,
    Model,
    Predict,
    Probe,
    Prompt,
    Recipe,
    Section,
    Split,
    Train,
)

__all__ = [
    "Adapter",
    "Data",
    "Engine",
    "Evaluate",
    "Generate",
    "Linear",
    "Model",
    "Predict",
    "Probe",
    "Prompt",
    "Recipe",
    "Section",
    "Split",
    "Train",
    "dump",
    "fields",
    "load",
]
