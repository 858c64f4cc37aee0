"""Model cards: front matter that hubs can read."""

from dataclasses import replace

import pytest
import yaml

from tests.sample_reports import content
from tunesmith.reporting import model_card


def test_the_model_card_has_valid_front_matter() -> None:
    text = model_card.classification(content(1))
    front = yaml.safe_load(text.split("---")[1])
    assert "text-classification" in front["tags"]
    assert front["model-index"][0]["results"][0]["metrics"]
    assert "tunesmith predict" in text


def test_the_hub_can_read_the_card() -> None:
    from huggingface_hub import ModelCard

    made = content(1)
    made = replace(made, methods=(replace(made.methods[0], library="transformers"),))
    data = ModelCard(model_card.classification(made)).data
    assert data.to_dict()["library_name"] == "transformers"
    accuracy = made.methods[0].scores.headline["accuracy"].value
    assert data.eval_results[0].metric_value == pytest.approx(accuracy, abs=1e-4)
