"""The response of /v1/models: what each served model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.serving.backends import Served, ServedGenerator
from tunesmith.serving.openai import ModelCard, ModelList


def listing(served: Mapping[str, Served], examples: Sequence[str] = (), keyed: bool = False) -> ModelList:
    """Return the served models. keyed: whether requests need a key."""
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
    return ModelList(data=cards, examples=list(examples), keyed=keyed)
