"""The recipe: what a run does, completely."""

from tunesmith.recipe.load import dump, fields, load
from tunesmith.recipe.sections import Data, Engine, Evaluate, Linear, Model, Probe, Recipe, Section, Split, Train

__all__ = [
    "Data",
    "Engine",
    "Evaluate",
    "Linear",
    "Model",
    "Probe",
    "Recipe",
    "Section",
    "Split",
    "Train",
    "dump",
    "fields",
    "load",
]
