"""Causal language models as a GGUF file, for llama.cpp and Ollama. Only this module imports gguf.

llama.cpp's own converter is not on PyPI; the `gguf` package, which it writes with, is. What cannot be converted with
certainty is refused: other architectures, scaled rotary embeddings, pre-tokenizers that llama.cpp has no name for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf as format_
import numpy as np
from numpy.typing import NDArray

from tunesmith.data.prompts import ChatEncoder
from tunesmith.errors import ModelError, RunError
from tunesmith.exporting import weights
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.models import llama_cpp
from tunesmith.protocols import TextGenerator

FILE = llama_cpp.FILE
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
}
"""transformers' model type -> llama.cpp's architecture."""
UNKNOWN = ("opt",)
"""Model types that llama.cpp does not compute, so that its converter would not help either."""
ACTIVATIONS = {"gpt2": "gelu", "gpt_neox": "gelu"}
"""What the name of an activation has to begin with; `silu` elsewhere. llama.cpp computes every GELU by tanh."""
QUANTIZATIONS = {
    "float32": (format_.GGMLQuantizationType.F32, format_.LlamaFileType.ALL_F32),
    "float16": (format_.GGMLQuantizationType.F16, format_.LlamaFileType.MOSTLY_F16),
    "q8_0": (format_.GGMLQuantizationType.Q8_0, format_.LlamaFileType.MOSTLY_Q8_0),
}
EMBEDDING, POSITIONS, OUTPUT = "token_embd.weight", "position_embd.weight", "output.weight"
"""llama.cpp's names. Positions are never rounded: they are few, and every token has one."""
BLOCK = 32
"""Numbers that share a scale in Q8_0; rows that are not a multiple of it are written in float16."""
PRE_TOKENIZERS = {
    "ByteLevel": "gpt-2",
    "Digits,ByteLevel": "smollm",
    r"Split:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+,Bytes": "llama-bpe",
    r"Split:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+,Bytes": "qwen2",
}
"""The steps of a pre-tokenizer -> llama.cpp's name for it (`tokenizer.ggml.pre`)."""


def gguf(source: ExportSource, folder: Path) -> Exported:
    """Write what `file` writes, and beside it what tunesmith needs to generate with the file by llama.cpp.

    Where llama.cpp is installed, its responses are compared with the run's, and its speed is the export's.
    """
    exported, config = _written(source, folder)
    config.save_pretrained(folder)
    predictor = source.predictor.with_model(llama_cpp.LlamaCppModel(folder))
    predictor.save(folder)
    if not llama_cpp.is_installed() or not isinstance(predictor, TextGenerator):
        return exported
    return replace(exported, engine=llama_cpp.version(), generator=predictor)


def file(source: ExportSource, folder: Path) -> Exported:
    """Write one GGUF file with weights, tokenizer and chat template; in float16 unless another precision is chosen."""
    return _written(source, folder)[0]


def _written(source: ExportSource, folder: Path) -> tuple[Exported, Any]:
    """Write the file; return what was read back, and the configuration of the model."""
    source.require_precision("gguf", "float32", "float16", "q8_0")
    if source.parts.chat is None:
        raise RunError(
            f"GGUF is for causal language models, and this is a {source.method} model",
            do="export --to onnx or safetensors",
        )
    precision = "float16" if source.precision == "auto" else source.precision
    model = weights.merged(source)
    write(folder / FILE, model, source.parts.chat.chat_encoder, precision, source.folder.parent.name)
    restored = source.predictor.with_model(read(folder / FILE, model).to(source.parts.model.device))
    engine = "torch, with the weights in the file"
    return Exported(restored.logits, engine, precision == "float32", timed=False), model.config


def write(path: Path, model: Any, chat_encoder: ChatEncoder, precision: str, title: str) -> None:
    """Write a model, its tokenizer and its chat template.

    precision: of the matrices; vectors stay in float32. title: the model's name.
    """
    config = model.config
    architecture = _architecture(config)
    quantization, file_type = QUANTIZATIONS[precision]
    writer = format_.GGUFWriter(path, architecture)
    writer.add_name(title)
    writer.add_file_type(file_type)
    _add_sizes(writer, config)
    _add_tokenizer(writer, chat_encoder.tokenizer, config.vocab_size)
    writer.add_chat_template(chat_encoder.portable_template)
    state = model.state_dict()
    for key, name in _names(model):
        if name == OUTPUT and _shares_embedding(model):
            continue
        array = _stored(config, key, state[key].detach().float().cpu().numpy())
        if array.ndim == 1 or precision == "float32" or name == POSITIONS:
            writer.add_tensor(name, array)
        else:
            stored = format_.GGMLQuantizationType.F16 if array.shape[-1] % BLOCK else quantization
            writer.add_tensor(name, format_.quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path, model: Any) -> Any:
    """Return a new model with the configuration of `model` and the weights in a file that `write` made of it."""
    import torch

    tensors = {tensor.name: tensor for tensor in format_.GGUFReader(path).tensors}
    state = {}
    for key, name in _names(model):
        tensor = tensors[EMBEDDING if name == OUTPUT and _shares_embedding(model) else name]
        array = format_.dequantize(tensor.data, tensor.tensor_type)
        state[key] = torch.from_numpy(np.array(_restored(model.config, key, array), np.float32))
    restored = type(model)(model.config).eval()
    restored.load_state_dict(state)
    return restored


def _names(model: Any) -> Iterator[tuple[str, str]]:
    """Yield each key of a model's state with llama.cpp's name for it. Raises ModelError for one that has none."""
    architecture = _architecture(model.config)
    kind = next(key for key, name in format_.MODEL_ARCH_NAMES.items() if name == architecture)
    names = format_.get_tensor_name_map(kind, model.config.num_hidden_layers)
    for key in model.state_dict():
        name = names.get_name(key, (".weight", ".bias"))
        if name is None:
            raise ModelError(f"GGUF has no name for {key}", do="export --to safetensors")
        yield key, name


def _shares_embedding(model: Any) -> bool:
    """Return whether llama.cpp uses the embedding as head. GPT-NeoX always has a head of its own there."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return tied and model.config.model_type != "gpt_neox"


def _stored(config: Any, key: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return a tensor of transformers as llama.cpp has it."""
    if _is_transposed(config, key):
        array = array.T
    order = _row_order(config, key, len(array))
    return np.ascontiguousarray(array if order is None else array[order])


def _restored(config: Any, key: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return a tensor of llama.cpp as transformers has it: the inverse of `_stored`."""
    order = _row_order(config, key, len(array))
    array = array if order is None else array[np.argsort(order)]
    return array.T if _is_transposed(config, key) else array


def _is_transposed(config: Any, key: str) -> bool:
    """Return whether a tensor is the weight of GPT-2's Conv1D, inputs x outputs."""
    return config.model_type == "gpt2" and key.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))


def _row_order(config: Any, key: str, rows: int) -> NDArray[np.intp] | None:
    """Return which row of a tensor llama.cpp has first, second ...; None where the order is the same."""
    heads = config.num_attention_heads
    if config.model_type == "gpt_neox" and ".query_key_value." in key:  # all queries, all keys, all values
        return np.arange(rows).reshape(heads, 3, -1).swapaxes(0, 1).ravel()
    if ARCHITECTURES[config.model_type] == "llama" and (".q_proj." in key or ".k_proj." in key):
        # llama.cpp rotates neighbouring rows, transformers the two halves of a head
        heads = heads if ".q_proj." in key else config.num_key_value_heads
        return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).ravel()
    return None


def _add_sizes(writer: Any, config: Any) -> None:
    """Add what llama.cpp needs to know of a configuration, under the names that all its architectures share."""
    heads, width = config.num_attention_heads, config.hidden_size
    head_dim = getattr(config, "head_dim", None) or width // heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type in ACTIVATIONS:
        writer.add_layer_norm_eps(getattr(config, "layer_norm_eps", None) or config.layer_norm_epsilon)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if rope := getattr(config, "rope_parameters", None):
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1)))
        writer.add_rope_freq_base(rope["rope_theta"])
    if config.model_type == "gpt_neox":
        writer.add_parallel_residual(config.use_parallel_residual)


def _architecture(config: Any) -> str:
    """Return llama.cpp's name of an architecture. Raises ModelError for those that `write` does not know."""
    kind = config.model_type
    if (reason := _unsupported(config)) is None:
        return ARCHITECTURES[kind]
    raise ModelError(
        f"a {kind} model cannot be written as GGUF here",
        expected=f"{', '.join(ARCHITECTURES)}, with plain rotary positions",
        found=reason,
        do="export --to onnx or safetensors"
        if kind in UNKNOWN
        else "export --to safetensors, and run llama.cpp's convert_hf_to_gguf.py on the folder",
    )


def _unsupported(config: Any) -> str | None:
    """Return what `write`, or llama.cpp, does not know of a configuration; None if there is nothing."""
    kind = config.model_type
    if kind not in ARCHITECTURES:
        return f"{kind}, which llama.cpp has no architecture for" if kind in UNKNOWN else kind
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        return f"{kind} with {rope}"
    if getattr(config, "use_sliding_window", kind == "mistral") and config.sliding_window:
        return f"{kind} with a sliding window"
    activation = getattr(config, "hidden_act", None) or config.activation_function
    if not activation.startswith(ACTIVATIONS.get(kind, "silu")):
        return f"{kind} with {activation} as its activation"
    if kind == "gpt_neox" and not config.attention_bias:
        return "gpt_neox without biases in its attention"
    if kind == "gpt2" and (config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights):
        return "gpt2 whose attention is scaled in another way"
    return None


def _add_tokenizer(writer: Any, tokenizer: Any, rows: int) -> None:
    """Add the tokens by id with their types, merges and special tokens; other rows are unused."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    pre_tokenizer = pre_tokenizer_name(backend)
    tokens = {index: text for text, index in tokenizer.get_vocab().items()}
    types = [format_.TokenType.NORMAL if index in tokens else format_.TokenType.UNUSED for index in range(rows)]
    for index, token in tokenizer.added_tokens_decoder.items():
        if index < rows:
            types[index] = format_.TokenType.CONTROL if token.special else format_.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list([tokens.get(index, f"[PAD{index}]") for index in range(rows)])
    writer.add_token_types([int(kind) for kind in types])
    merges = backend["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for special in ("bos", "eos", "unk", "pad"):
        if (index := getattr(tokenizer, f"{special}_token_id")) is not None:
            getattr(writer, f"add_{special}_token_id")(index)
    writer.add_add_bos_token(adds_bos(tokenizer))
    writer.add_add_eos_token(False)


def adds_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer puts its bos token before every text, as llama.cpp then does too."""
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])


def pre_tokenizer_name(backend: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the pre-tokenizer in a tokenizer.json. Raises ModelError where it has none."""
    steps = backend["model"]["type"] + " of " + _steps(backend.get("pre_tokenizer") or {})
    if (normalizer := (backend.get("normalizer") or {}).get("type", "NFC")) != "NFC":  # which hardly any text needs
        steps = f"{normalizer}, {steps}"
    name = PRE_TOKENIZERS.get(steps.removeprefix("BPE of "))
    if name is None or backend["model"].get("byte_fallback"):
        raise ModelError(
            "llama.cpp has no known name for this tokenizer's pre-tokenizer",
            expected="byte-level BPE as in GPT-2, GPT-NeoX, SmolLM, Llama 3 or Qwen 2",
            found=steps[:200],
            do="export --to safetensors, and run llama.cpp's convert_hf_to_gguf.py on the folder",
        )
    return name


def _steps(step: Mapping[str, Any]) -> str:
    """Return the steps of a pre-tokenizer in the notation of `PRE_TOKENIZERS`."""
    kind = str(step.get("type"))
    if kind == "Sequence":
        return ",".join(map(_steps, step["pretokenizers"]))
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return f"Split:{step['pattern'].get('Regex')}"
    if kind == "ByteLevel" and step.get("use_regex") is False:
        kind = "Bytes"
    prefixed = step.get("add_prefix_space")
    plain = {"ByteLevel": not prefixed, "Bytes": not prefixed, "Digits": step.get("individual_digits")}
    return kind if plain.get(kind) else f"{kind} {dict(step)}"
