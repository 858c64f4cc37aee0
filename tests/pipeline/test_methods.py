"""Methods describe what they train."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith import recipe as recipes
from tunesmith.pipeline.fitting.methods import METHODS

RANDOM = {"from_config": {"model_type": "gpt2", "n_layer": 2}}


@pytest.mark.parametrize(
    ("tree", "description"),
    [
        ({"train": {"num_train_epochs": 1}}, "fine-tuned all-minilm-l6-v2, 1 epoch"),
        ({"train": {"num_train_epochs": 2.5}}, "fine-tuned all-minilm-l6-v2, 2.5 epochs"),
        ({"train": {"max_steps": 1}}, "fine-tuned all-minilm-l6-v2, 1 step"),
        ({"adapter": {"kind": "lora", "r": 8}, "train": {"max_steps": 9}}, "LoRA on all-minilm-l6-v2, r 8, 9 steps"),
        ({"model": RANDOM, "train": {"max_steps": 9}}, "trained gpt2 with random initial weights, 9 steps"),
        (
            {"model": RANDOM | {"state_dict": "weights.pth"}, "train": {"max_steps": 9}},
            "fine-tuned all-minilm-l6-v2, 9 steps",
        ),
    ],
)
def test_a_fine_tuned_model_is_one_that_was_trained_before(tree: dict[str, Any], description: str) -> None:
    recipe = recipes.load({"method": "encoder", "data": {"path": "rows.csv"}, **tree})
    assert METHODS["encoder"].describe(recipe) == description
