"""Weights in 4 bits (QLoRA, arXiv:2305.14314). The only door to bitsandbytes."""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from tunesmith import errors, processes
from tunesmith.recipe import Adapter

INSTALL = "pip install 'tunesmith[qlora]'"


def config(settings: Adapter) -> Any:
    """Return how transformers loads weights in 4 bits; the output embedding, and what is tied to it, keep their format.

    `pretrained.sequence_classifier` excludes its head, too.
    """
    from transformers import BitsAndBytesConfig

    with quiet():
        correct_dequantization()
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=settings.quant_type,
            bnb_4bit_use_double_quant=settings.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, settings.compute_dtype),
        )


def saved_config(model_config: Mapping[str, Any]) -> Any | None:
    """Return the 4-bit configuration in a model's config.json; None for a model that was trained in full precision."""
    from transformers import BitsAndBytesConfig

    quantization = model_config.get("quantization_config") or {}
    if not quantization.get("load_in_4bit"):
        return None
    with quiet():
        correct_dequantization()
    return BitsAndBytesConfig.from_dict(quantization)


@functools.cache
def correct_dequantization() -> torch.library.Library:
    """Import bitsandbytes, and correct its CPU kernel where rows are no multiple of a block of 64 weights.

    With AVX-512 it starts a new block in every row of 32 or 96 weights (seen in 0.50.2) although blocks span rows:
    the weights come out wrong. As one long row they have the right blocks. Returns the registration, which lasts as
    long as the object.
    """
    import bitsandbytes  # noqa: F401  registers the kernel

    library = torch.library.Library("bitsandbytes", "IMPL")  # type: ignore[no-untyped-call]

    kernel = torch.library.get_kernel("bitsandbytes::dequantize_4bit", "CPU")

    def dequantize_rows(
        keys: Any, A: Tensor, absmax: Tensor, blocksize: int, quant_type: str, shape: Sequence[int], dtype: torch.dtype
    ) -> Tensor:
        count = math.prod(shape)
        as_one_row = shape[-1] % blocksize != 0 and count % blocksize == 0
        flat = [count] if as_one_row else shape
        return cast(Tensor, kernel.call_boxed(keys, A, absmax, blocksize, quant_type, flat, dtype)).view(*shape)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced
        library.impl("dequantize_4bit", dequantize_rows, "CPU", with_keyset=True)  # type: ignore[no-untyped-call]
    return library


def usable() -> str | None:
    """Return None if 4-bit training works on this machine, else the reason why not; a small layer is tried."""
    if reason := unavailable():
        return reason
    try:
        return _try(processes.device())
    except Exception as error:  # drivers and missing libraries fail in many ways; any of them is the answer
        return f"bitsandbytes fails here ({errors.summary(error)})"


def unavailable() -> str | None:
    """Return None if bitsandbytes can be imported, else the reason why not.

    peft and accelerate check only whether it is installed. If its import fails, it counts as not installed for them
    too: otherwise plain LoRA would fail with it.
    """
    if (error := _import_error()) is not None:
        return f"bitsandbytes cannot be imported ({error})"
    if importlib.util.find_spec("bitsandbytes") is None:
        return f"bitsandbytes is not installed ({INSTALL})"
    return None


@functools.cache
def _import_error() -> str | None:
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            import bitsandbytes  # noqa: F401
    except Exception as error:  # drivers and missing libraries fail in many ways
        if isinstance(error, ModuleNotFoundError) and error.name == "bitsandbytes":  # it is not installed
            return None
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
        return errors.summary(error)
    return None


def optimizer(name: str) -> type[torch.optim.Optimizer]:
    """Return an optimizer class of bitsandbytes. Raises MissingExtra if bitsandbytes cannot be imported."""
    if reason := unavailable():
        raise errors.MissingExtra(f"cannot train with {name}: {reason}", do=f"{INSTALL}, or set train.optim=adamw")
    with quiet():
        import bitsandbytes
    return cast(type[torch.optim.Optimizer], getattr(bitsandbytes.optim, name))


def _try(device: torch.device) -> str | None:
    with quiet():
        correct_dequantization()
        import bitsandbytes

    layer = bitsandbytes.nn.Linear4bit(64, 32, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    layer.weight.data = torch.linspace(-1, 1, 64 * 32).view(32, 64)
    layer = use_training_kernels(layer.to(device))
    x_BD = torch.ones(2, 64, device=device, requires_grad=True)
    with torch.no_grad():
        before_BD = layer.eval()(x_BD)
    after_BD = layer.train()(x_BD)
    after_BD.sum().backward()
    if x_BD.grad is None or not bool(x_BD.grad.isfinite().all()):
        return "gradients do not pass through 4-bit layers on this device"
    if not torch.allclose(before_BD, after_BD, atol=1e-4):
        return "4-bit layers compute different results in training and in evaluation on this device"
    return None


def use_training_kernels(model: nn.Module) -> nn.Module:
    """Make 4-bit layers compute the same in training and in evaluation; returns the model.

    On CPUs with AVX512-BF16 the first evaluation would repack the weights for inference: their scales are rounded to
    bfloat16, and gradients no longer pass through them. Tensors that are not in 4 bits are copied out of the file that
    they were read from: a single one that refers to the file would keep the full weights in memory.
    """
    if is_quantized(model):
        for parameter in model.parameters():
            if _state(parameter) is None:
                parameter.data = parameter.data.clone()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  a plain attribute, no tensor
    return model


def is_quantized(model: nn.Module) -> bool:
    """Return whether some of the weights are in 4 bits."""
    return any(_state(parameter) is not None for parameter in model.parameters())


def size(parameter: nn.Parameter) -> int:
    """Return the number of weights in a parameter: in 4 bits there are two to a byte, and `numel` counts bytes."""
    state = _state(parameter)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def dequantize(model: nn.Module) -> nn.Module:
    """Replace 4-bit layers, in place, by float32 layers of their original class with the same values."""
    import bitsandbytes

    for name, module in list(model.named_modules()):
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
        original: Any = getattr(module, "source_cls", nn.Linear)
        if original is nn.Linear:
            with torch.device("meta"):
                layer: Any = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        else:  # GPT-2's Conv1D is a linear layer with a transposed weight
            layer, weight = original(module.out_features, module.in_features), weight.T.contiguous()
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            layer.bias = nn.Parameter(module.bias.detach().float(), requires_grad=False)
        model.set_submodule(name, layer.train(module.training))
    _remove_marks(model)
    return model


def _remove_marks(model: Any) -> None:
    """Remove the attributes by which transformers and peft recognise a 4-bit model."""
    for mark in ("hf_quantizer", "quantization_method", "is_quantized", "is_loaded_in_4bit"):
        if mark in vars(model):
            delattr(model, mark)
    for inner in model.modules():
        settings = getattr(inner, "config", None)
        for mark in ("quantization_config", "_is_quantized"):
            if mark in vars(settings or type("", (), {})()):
                delattr(settings, mark)


def _state(parameter: Any) -> Any | None:
    return getattr(parameter, "quant_state", None)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence bitsandbytes, whose import warns on some CPUs about a missing kernel for inference, not needed here."""
    logger = logging.getLogger("bitsandbytes")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
