"""The response of /v1/models: what each served model is."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.serving.backends import Served, ServedGenerator
from tunesmith.serving.openai import ModelCard, ModelList


def listing(served: Mapping[str, Served]) -> ModelList:
    """Return the served models."""
    cards = []
    for model in served.values():
        card = ModelCard(
            id=model.name,
            created=model.created,
            version=model.version,
            run=model.run_name,
            task=model.task,
            limit=model.max_length,
        )
        if isinstance(model, ServedGenerator):
            card.prompted = True
        else:
            card.labels, card.pairs = list(model.classifier.labels), model.pairs
            card.thresholds, card.prompted = model.thresholds, model.prompted
        cards.append(card)
    return ModelList(data=cards)
