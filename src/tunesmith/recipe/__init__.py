"""The recipe: what a run does, completely."""

from tunesmith.recipe.aliases import fields, overrides_of
from tunesmith.recipe.cost_settings import CostRates
from tunesmith.recipe.data_settings import Data, Split
from tunesmith.recipe.decide_settings import Decide, DecisionTarget
from tunesmith.recipe.endpoint_settings import Endpoint
from tunesmith.recipe.generation_settings import Adapter, Generate, Predict, Prompt
from tunesmith.recipe.judge_settings import Judge
from tunesmith.recipe.load import Source, dump, load
from tunesmith.recipe.sections import Engine, Evaluate, Linear, Model, Probe, Recipe
from tunesmith.recipe.serve_settings import Guard, Serve
from tunesmith.recipe.train_settings import Train
from tunesmith.recipe.values import Section

__all__ = [
    "Adapter",
    "CostRates",
    "Data",
    "Decide",
    "DecisionTarget",
    "Endpoint",
    "Engine",
    "Evaluate",
    "Generate",
    "Guard",
    "Judge",
    "Linear",
    "Model",
    "Predict",
    "Probe",
    "Prompt",
    "Recipe",
    "Section",
    "Serve",
    "Source",
    "Split",
    "Train",
    "dump",
    "fields",
    "load",
    "overrides_of",
]
