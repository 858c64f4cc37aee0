"""Changes of a model's architecture: sizes, dropout, weights from a `.pth` file, embedding rows for new tokens."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import pickle
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tunesmith.console import say, warn
from tunesmith.errors import ModelError


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as it was loaded, with what an adapter for it has to know."""

    module: nn.Module
    has_own_weights: bool = False
    """The weights come from `model.from_config` or `model.state_dict`, and cannot be loaded by the model's name."""
    added_tokens: int = 0
    """Rows that were added at the end of its embedding for new tokens."""
    new_weights: frozenset[str] = frozenset()
    """Names of the weights that the files lack, such as those of a new head."""


ALLOW_PICKLE = "TUNESMITH_ALLOW_PICKLE"
"""Environment variable that, set to 1, accepts weights in pickle's format, which can hold code. A recipe cannot."""
FEW = 100
"""Repeated modules, such as layers, that are counted one by one when the size of a model is estimated."""
TRAINED = 4
"""Times the size of the weights that training with AdamW takes: weights, gradients, and two moments."""
STATE_DICT_KEYS = ("model_state_dict", "state_dict", "model")
"""Keys under which training scripts save the weights, in the order tried."""


def allows_pickle() -> bool:
    """Return whether files like pytorch_model.bin are loaded where there are no safetensors."""
    return os.environ.get(ALLOW_PICKLE) == "1"


def build(from_config: Mapping[str, Any], tokenizer: Any, changes: Mapping[str, Any]) -> Any:
    """Return the transformers configuration of `model.from_config`, with the tokenizer's vocabulary and special tokens.

    changes: further settings, such as label names. Raises ModelError for unknown architectures and settings.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    settings = dict(from_config)
    kind = str(settings.pop("model_type", ""))
    if kind not in CONFIG_MAPPING:
        raise _unknown("model_type", kind, CONFIG_MAPPING.keys(), "one of the model types of transformers")
    config_class = CONFIG_MAPPING[kind]
    names = {*config_class().to_dict(), *config_class.attribute_map}
    for name in settings:
        if name not in names:
            raise _unknown("setting", name, names, f"a setting of {kind}")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if settings.get("vocab_size", len(tokenizer)) < len(tokenizer):
        raise ModelError(
            f"model.from_config.vocab_size is {settings['vocab_size']}, but the tokenizer has {len(tokenizer)} tokens",
            do="leave vocab_size out",
        )
    settings = {"vocab_size": len(tokenizer)} | ids | settings | dict(changes)
    try:
        _check_memory(kind, settings)
        return AutoConfig.for_model(kind, **settings)
    except ModelError:
        raise
    except Exception as error:  # configurations check their values in many ways
        raise ModelError(
            f"model.from_config is not a valid {kind} configuration",
            found=" ".join(str(error).split(" Exception raised from")[0].split())[:300],
        ) from error


def _check_memory(kind: str, settings: Mapping[str, Any]) -> None:
    """Raise ModelError where the weights would not fit into memory. Nothing is built that has a size of its own.

    Parameters are counted on the meta device. Of modules that repeat, such as thousands of layers, there are two or
    three; the number of parameters is linear in each such count.
    """
    import psutil
    from transformers import AutoConfig, AutoModel

    counts = {
        name: value
        for name, value in settings.items()
        if re.search("layer|expert|block", name) and type(value) is int and value > FEW
    }
    parameters = 0
    for corner in itertools.product((2, 3), repeat=len(counts)):
        with torch.device("meta"):
            config = AutoConfig.for_model(kind, **{**settings, **dict(zip(counts, corner, strict=True))})
            model = AutoModel.from_config(config, dtype=torch.float32)
        weight = math.prod(
            value - 2 if chosen == 3 else 3 - value for chosen, value in zip(corner, counts.values(), strict=True)
        )
        parameters += weight * sum(parameter.numel() for parameter in model.parameters())
    needed, free = 4 * parameters, psutil.virtual_memory().available
    if needed > free:
        sizes = {name: v for name, v in settings.items() if type(v) is int and v > FEW and not name.endswith("_id")}
        raise ModelError(
            f"model.from_config describes a {kind} with {parameters:,} parameters, which does not fit into memory",
            expected=f"at most {free / 2**30:.1f} GB, which are free; training takes about {TRAINED} times the weights",
            found=f"{needed / 2**30:,.1f} GB of weights in float32",
            do=f"lower {' or '.join(sorted(sizes, key=sizes.__getitem__, reverse=True)[:3])}",
        )
    if TRAINED * needed > free and not torch.cuda.is_available():
        warn(
            f"model.from_config: the weights take {needed / 2**30:.1f} GB, and training all of them with AdamW about "
            f"{TRAINED * needed / 2**30:.1f} GB; {free / 2**30:.1f} GB are free"
        )


def _unknown(what: str, name: str, known: Iterable[str], expected: str) -> ModelError:
    near = difflib.get_close_matches(name, list(known), 3)
    return ModelError(
        f"model.from_config: unknown {what} {name!r}",
        expected=expected,
        do=f"did you mean {' or '.join(near)}?" if near else "see the documentation of transformers",
    )


def set_dropout(config: Any, rate: float) -> None:
    """Set every dropout of a configuration to the same rate. Raises ModelError for a configuration without any."""
    inner = config.get_text_config()
    names = [
        name
        for name, value in inner.to_dict().items()
        # layerdrop skips whole layers, and is not meant
        if "drop" in name and "layerdrop" not in name and isinstance(value, float)
    ]
    if not names:
        raise ModelError(f"{config.model_type} has no dropout to set", do="leave out model.dropout")
    for name in names:
        setattr(inner, name, rate)


def load_state_dict(model: nn.Module, path: Path, prefix: str) -> None:
    """Replace the model's weights by those of a `.pth` file: a state dict, by itself or under one of STATE_DICT_KEYS.

    prefix: weights whose names start with it must all be in the file, such as `transformer.`; empty for all weights.
    Tied weights may be missing. Raises ModelError for files with anything but tensors, or with other names or shapes.
    """
    state = _read_state_dict(path)
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # other shapes
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ModelError(f"the weights in {path} do not fit the model", found="; ".join(lines)[:300]) from error
    pairs = getattr(model, "all_tied_weights_keys", {}).items()
    tied = {name for pair in pairs if any(other in state for other in pair) for name in pair}
    missing = [name for name in result.missing_keys if name.startswith(prefix) and name not in tied]
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
                f"{kind}: {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
                for kind, names in (("missing", missing), ("unknown", unexpected))
                if names
            ),
            do="check model.from_config or model.name_or_path",
        )


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    expected = "a state dict (name -> tensor) written by torch.save"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist", expected=expected) from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} contains more than tensors; reading it could run code",
            expected=expected,
            do="save only model.state_dict(), with the program that made the file",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged", expected=expected, found=str(error).split("\n")[0][:300]) from error
    for name in STATE_DICT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(
            f"{path} does not contain a state dict",
            expected=f"{expected}, by itself or under {', '.join(STATE_DICT_KEYS)}",
        )
    return content


def add_rows(model: Any, tokens: int) -> int:
    """Give the embedding a row for each of the tokenizer's tokens; returns how many were added.

    New rows, also those of an output embedding that is not tied, are the mean of the old ones: probabilities of known
    tokens hardly change (Hewitt 2021), and loading the model again gives the same rows.
    """
    rows: int = model.get_input_embeddings().weight.shape[0]
    added = max(0, tokens - rows)
    if added:
        say(f"note: the tokenizer has {tokens} tokens and the model {rows}: added {added} rows to its embedding")
        model.resize_token_embeddings(tokens, mean_resizing=False)
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            if table is not None:
                table.weight.data[rows:] = table.weight.data[:rows].mean(0)
    return added


def new_weights(report: Any) -> frozenset[str]:
    """Return the names of weights that the files lack, or have in another shape. report: of transformers."""
    return frozenset([*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])])


def check_complete(name: str, new: Collection[str], prefix: str) -> None:
    """Raise ModelError for files that lack weights of the pretrained part, which would silently be random.

    name: what the model is called, in the message. new: of `new_weights`. prefix: of the names of that part.
    """
    random = sorted(key for key in new if key.startswith(prefix) and "pooler" not in key)
    if random:
        raise ModelError(
            f"the files of {name} do not have all weights of the model",
            found=f"{len(random)} tensors are missing or have another shape, such as {random[0]}",
            do="check that config.json and model.safetensors belong together",
        )


def set_output_bias(loaded: LoadedModel, bias_K: NDArray[np.float64]) -> None:
    """Give a new output layer these biases, with which training begins; where it has none, nothing changes.

    A layer that was trained before keeps its own.
    """
    for name, layer in loaded.module.named_modules():
        is_output = isinstance(layer, nn.Linear) and layer.bias is not None and len(layer.bias) == len(bias_K)
        if is_output and f"{name}.bias" in loaded.new_weights:
            with torch.no_grad():
                layer.bias.copy_(torch.from_numpy(bias_K))


def check_finite(source: str, model: nn.Module) -> None:
    """Raise ModelError for weights that are not finite numbers. source: what the model is called, in the message."""
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        # a sum takes less memory, but can be infinite where no weight is
        if not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all():
            raise ModelError(
                f"cannot use {source}: weights are not finite",
                found=f"NaN or infinity in {name}",
                do="restore the file from a copy, or train again, with a lower learning rate",
            )


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
