"""What a recipe changes in a model: its sizes, its dropout, weights from a `.pth` file, rows for new tokens."""

from __future__ import annotations

import difflib
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.console import say
from tunesmith.errors import ModelError


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as it was loaded, and what an adapter on it has to know."""

    module: nn.Module
    has_own_weights: bool = False
    """Its weights come from `model.from_config` or `model.state_dict`: no name leads to them."""
    added_tokens: int = 0
    """Rows that were added to the end of its embedding for new tokens."""


INSIDE = ("model_state_dict", "state_dict", "model")
"""Where training scripts put the weights in what they save, in the order tried."""


def build(sizes: Mapping[str, Any], tokenizer: Any, about: Mapping[str, Any]) -> Any:
    """The transformers configuration of `model.from_config`; vocabulary and special tokens are the tokenizer's.

    about: further settings, such as label names. Raises ModelError for unknown architectures and settings.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    given = dict(sizes)
    kind = str(given.pop("model_type", ""))
    if kind not in CONFIG_MAPPING:
        raise _unknown("model_type", kind, CONFIG_MAPPING.keys(), "one of the model types of transformers")
    known = CONFIG_MAPPING[kind]
    names = {*known().to_dict(), *known.attribute_map}
    for name in given:
        if name not in names:
            raise _unknown(name, given[name], names, f"a setting of {kind}")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if given.get("vocab_size", len(tokenizer)) < len(tokenizer):
        raise ModelError(
            f"model.from_config.vocab_size is {given['vocab_size']}, but the tokenizer has {len(tokenizer)} tokens",
            do="leave vocab_size out",
        )
    try:
        return AutoConfig.for_model(kind, **{"vocab_size": len(tokenizer)} | ids | given | dict(about))
    except Exception as error:  # configurations check their values in many ways
        raise ModelError(f"model.from_config is no {kind}", found=" ".join(str(error).split())[:300]) from error


def _unknown(name: str, value: Any, known: Iterable[str], expected: str) -> ModelError:
    sought = value if name == "model_type" else name
    near = difflib.get_close_matches(str(sought), list(known), 3)
    return ModelError(
        f"model.from_config: unknown {'model_type' if name == 'model_type' else 'setting'} {sought!r}",
        expected=expected,
        do=f"did you mean {' or '.join(near)}?" if near else "see the documentation of transformers",
    )


def set_dropout(config: Any, rate: float) -> None:
    """Give every dropout of a configuration the same rate. Raises ModelError where it has none."""
    inner = config.get_text_config()
    names = [
        name
        for name, value in inner.to_dict().items()
        # layerdrop leaves out whole layers, which is another thing
        if "drop" in name and "layerdrop" not in name and isinstance(value, float)
    ]
    if not names:
        raise ModelError(f"{config.model_type} has no dropout to set", do="leave out model.dropout")
    for name in names:
        setattr(inner, name, rate)


def fill(model: nn.Module, path: Path, prefix: str) -> None:
    """Replace the model's weights by those of a `.pth` file: a state dict, alone or under one of INSIDE.

    prefix: of names that must all be there and fit, such as `transformer.`; everything, where it is empty. Tied weights
    may be missing. Raises ModelError for files with anything but tensors, and where names or shapes do not fit.
    """
    state = _read(path)
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # of other shapes
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ModelError(f"the weights in {path} do not fit the model", found="; ".join(lines)[:300]) from error
    missing = [name for name in result.missing_keys if name.startswith(prefix) and not _is_tied(model, name, state)]
    ignored: Iterable[str] = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    unexpected = [
        name
        for name in result.unexpected_keys
        if name.startswith(prefix) and not any(re.search(pattern, name) for pattern in ignored)
    ]
    if missing or unexpected:
        raise ModelError(
            f"the weights in {path} are not those of this architecture",
            found="; ".join(
                _some(kind, names) for kind, names in (("missing", missing), ("unknown", unexpected)) if names
            ),
            do="check model.from_config, or model.name_or_path where there is none",
        )


def _some(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{kind}: {', '.join(names[:5])}{more}"


def _is_tied(model: Any, name: str, state: Mapping[str, torch.Tensor]) -> bool:
    """Whether a parameter is one with another that the file has."""
    pairs = getattr(model, "all_tied_weights_keys", {})
    return any(name in pair and any(other in state for other in pair) for pair in pairs.items())


def _read(path: Path) -> dict[str, torch.Tensor]:
    expected = "a state dict (name -> tensor) written by torch.save"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}", expected=expected) from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, and reading it would run code",
            expected=expected,
            do="save model.state_dict() alone, where the file was made",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged", expected=expected, found=str(error).split("\n")[0][:300]) from error
    for name in INSIDE:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
            break
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelError(f"{path} holds no state dict", expected=f"{expected}, alone or under {', '.join(INSIDE)}")
    return found


def add_rows(model: Any, tokens: int) -> int:
    """Give the embedding a row for each of the tokenizer's tokens; returns how many were added.

    New rows, also of an output embedding of its own, are the mean of the old ones: known tokens keep nearly their
    probabilities (Hewitt 2021), and a model that is loaded again gets the same rows.
    """
    rows: int = model.get_input_embeddings().weight.shape[0]
    added = max(0, tokens - rows)
    if added:
        say(f"note: the tokenizer has {tokens} tokens and the model {rows}: {added} rows were added to its embedding")
        model.resize_token_embeddings(tokens, mean_resizing=False)
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            if table is not None:
                table.weight.data[rows:] = table.weight.data[:rows].mean(0)
    return added


def repeated_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of the outermost lists of two or more modules of one class.

    These are the layers that are compiled, and sharded, one by one.
    """
    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and id(module) not in inside:
            kinds = {type(member) for member in module}
            if len(module) > 1 and len(kinds) == 1:
                inside.update(id(part) for part in module.modules())
                yield from module
