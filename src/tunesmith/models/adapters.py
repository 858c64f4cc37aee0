"""Low-rank adapters beside frozen weights: LoRA (arXiv:2106.09685) and its variants. The only door to peft."""

from __future__ import annotations

import copy
import difflib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from tunesmith import records
from tunesmith.errors import ModelError
from tunesmith.models import architectures, quantize
from tunesmith.models.architectures import LoadedModel
from tunesmith.recipe import Adapter

TaskType = Literal["CAUSAL_LM", "SEQ_CLS"]
"""What peft calls a model for text generation, and one for sequence classification."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE_CONFIG = "base_config.json"
"""The configuration of the base model, with its `_name_or_path`. (transformers takes a folder with a config.json for a
full model and does not look for the adapter.)"""
ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """What an adapter's folder says about its base model."""

    base: str
    """The folder or hub id of the base model."""
    revision: str | None
    r: int
    model_config: Mapping[str, Any]
    """The configuration of the base model."""


def attach(
    loaded: LoadedModel, settings: Adapter, task_type: TaskType, base_name: str, seed: int, revision: str | None = None
) -> nn.Module:
    """Return the model with LoRA matrices; only they are trained, and in classification the whole head.

    Their first values depend on the seed alone. base_name: the name of the base model, anything that `pretrained` can
    load; the adapter's files also name the folder that it was loaded from, for plain peft. Rows of the embedding that
    were added for new tokens are trained too, and saved with the adapter. Raises ModelError for a target module that
    does not exist, and for weights without a name.
    """
    model = loaded.module
    if loaded.has_own_weights:
        raise ModelError(
            "cannot train an adapter on weights without a name: an adapter is saved without its base model",
            found="model.from_config or model.state_dict beside an adapter",
            do="train in full (adapter.kind=none), or save the model first and name its folder",
        )
    targets = _targets(model, settings.target_modules)
    new_rows: dict[str, list[int]] = {}
    if loaded.added_tokens:
        network = cast(Any, model)
        tables = [network.get_input_embeddings(), network.get_output_embeddings()]
        if tables[1] is None or tables[1].weight is tables[0].weight:
            tables.pop()  # a tied output is trained with the input's rows
        rows = len(tables[0].weight)
        names = {id(module): name for name, module in network.named_modules()}
        new_rows = {names[id(table)]: list(range(rows - loaded.added_tokens, rows)) for table in tables}
    config = _peft().LoraConfig(
        task_type=task_type,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=ALL_LINEAR if ALL_LINEAR in settings.target_modules else list(settings.target_modules),
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
        fan_in_fan_out=any(_is_conv1d(module) for module in targets),
        modules_to_save=heads(model) if task_type == "SEQ_CLS" else None,
        trainable_token_indices=new_rows or None,
        revision=revision,
    )
    torch.manual_seed(seed)
    adapted = _wrap(model, config)
    if config.base_model_name_or_path and Path(config.base_model_name_or_path).exists():
        config.base_model_name_or_path = str(Path(config.base_model_name_or_path).resolve())
    cast(Any, model).config.name_or_path = base_name
    return adapted


def describe(model: nn.Module) -> str:
    """Return a line such as `2,097,152 of 1,013,878,784 parameters learn (0.2068%)`."""
    total, learning = count(model)
    return f"{learning:,} of {total:,} parameters learn ({learning / max(1, total):.4%})"


def count(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of all and of trainable parameters; shared ones count once, 4-bit weights one by one.

    A module that an adapter trains in full has a second copy, which is not used and does not count.
    """
    idle = {id(parameter) for name, parameter in model.named_parameters() if ".original_module." in name}
    sizes = [(quantize.size(p), p.requires_grad) for p in model.parameters() if id(p) not in idle]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


def save(folder: Path, model: Any) -> None:
    """Write the adapter (adapter_config.json, adapter_model.safetensors) and its base model's configuration."""
    card = folder / "README.md"
    before = card.read_bytes() if card.exists() else None
    model.save_pretrained(folder, save_embedding_layers=False)
    # peft writes a template of a model card; the folder keeps the card that it had
    card.unlink(missing_ok=True)
    if before is not None:
        card.write_bytes(before)
    config = model.get_base_model().config
    content = json.loads(config.to_json_string()) | {"_name_or_path": config.name_or_path}
    (folder / BASE_CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def saved(folder: Path) -> SavedAdapter | None:
    """Read what `save` or peft wrote about an adapter; None if the folder holds no adapter.

    Its base is the folder that the adapter names, or else the name under which it was loaded for training.
    """
    if not (folder / CONFIG).is_file():
        return None
    try:
        config = records.parse((folder / CONFIG).read_bytes())
        path = next((path for name in (BASE_CONFIG, "config.json") if (path := folder / name).is_file()), None)
        model_config = records.parse(path.read_bytes()) if path else {}  # config.json: an older version
        base = config["base_model_name_or_path"]
        if not Path(base).exists():  # another machine, or an emptied cache
            base = model_config.get("_name_or_path") or base
        return SavedAdapter(base, config.get("revision"), config["r"], model_config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / CONFIG} is damaged", found=str(error), do="save the adapter again") from error


def load(model: nn.Module, folder: Path, trainable: bool = False) -> nn.Module:
    """Return the model with the adapter in `folder`, in eval mode; the adapter can be trained further if asked for."""
    if not (folder / WEIGHTS).is_file() and not architectures.allows_pickle():
        raise ModelError(
            f"{folder} has no {WEIGHTS}",
            do=f"save it again; to load a pickled one, which can hide code, set {architectures.ALLOW_PICKLE}=1",
        )
    peft = _peft()
    with _quiet():
        adapted: nn.Module = peft.PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    return adapted.eval()


def has_adapter(model: nn.Module) -> bool:
    """Return whether the model has an adapter."""
    return hasattr(model, "disable_adapter")


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within this, the adapted model computes what its base model does."""
    with cast(Any, model).disable_adapter():
        yield


def merge(model: nn.Module) -> nn.Module:
    """Return a plain transformers model that computes what the adapted one does; the adapted one does not change.

    4-bit weights are first converted to the float32 values that the adapter was trained beside: merging into 4 bits
    would round the adapter's contribution away.
    """
    if not hasattr(model, "merge_and_unload"):
        raise ModelError(f"{type(model).__name__} has no adapter to merge")
    if quantize.is_quantized(model):
        adapted = cast(Any, model)
        config = copy.deepcopy(adapted.peft_config["default"])
        config.inference_mode = False
        base = quantize.dequantize(copy.deepcopy(adapted).unload())
        config.fan_in_fan_out = any(_is_conv1d(module) for module in base.modules())
        unmerged: Any = _wrap(base, config)
        state = _peft().get_peft_model_state_dict(adapted, save_embedding_layers=False)
        _peft().set_peft_model_state_dict(unmerged, state)
    else:
        unmerged = copy.deepcopy(model)
    with _quiet():
        merged: Any = unmerged.merge_and_unload(safe_merge=True)
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        if mark in vars(merged):
            delattr(merged, mark)
    return cast(nn.Module, merged.requires_grad_(True).train(model.training))


def heads(model: nn.Module) -> list[str]:
    """Return the names of the modules in a classifier's head: all with weights outside the body, and its pooler.

    Many files lack the pooler: it is then as random as the rest of the head, and is trained and saved with it.
    """
    prefix = str(getattr(model, "base_model_prefix", ""))
    body = getattr(model, prefix, None)
    if not isinstance(body, nn.Module):
        raise ModelError(f"{type(model).__name__} does not name its body", expected="a base_model_prefix")
    outside = [
        name for name, child in model.named_children() if child is not body and any(True for _ in child.parameters())
    ]
    return outside + ([f"{prefix}.pooler"] if isinstance(getattr(body, "pooler", None), nn.Module) else [])


def _targets(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Return the modules that match a recipe's names; every name must match at least one.

    They are linear layers outside the head, GPT-2's Conv1D among them.
    """
    output = cast(Any, model).get_output_embeddings()
    head = [] if output is not None else heads(model)
    layers = {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or _is_conv1d(module))
        and module is not output
        and not any(f"{name}.".startswith(f"{part}.") for part in head)
    }
    targets = []
    for target in names:
        matching = [m for name, m in layers.items() if target == ALL_LINEAR or f".{name}".endswith(f".{target}")]
        if not matching:
            short = sorted({name.rsplit(".", 1)[-1] for name in layers})
            near = difflib.get_close_matches(target, short, 1)
            raise ModelError(
                f"adapter.target_modules: {type(model).__name__} has no linear layer {target!r}",
                expected=f"{ALL_LINEAR}, or some of: {', '.join(short)}",
                do=f"did you mean {near[0]!r}?" if near else "use one of these",
            )
        targets += matching
    return targets


def _is_conv1d(module: nn.Module) -> bool:
    """Return whether this is GPT-2's Conv1D: a linear layer whose weight is in x out."""
    return type(module).__name__ == "Conv1D"


def _wrap(model: nn.Module, config: Any) -> nn.Module:
    with _quiet():
        return cast(nn.Module, _peft().get_peft_model(cast(Any, model), config))


def _peft() -> Any:
    quantize.unavailable()  # before peft imports a bitsandbytes that is installed and does not work
    with quantize.quiet():
        import peft
    return peft


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence peft's warnings about old names in transformers, and about settings that follow from the layer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        warnings.filterwarnings("ignore", "The PEFT config's `base_model_name_or_path` was renamed", UserWarning)
        yield
