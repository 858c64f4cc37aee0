"""Causal language models of the Llama family as a GGUF file, for llama.cpp and Ollama. Only this module imports gguf.

llama.cpp's own converter is not on PyPI; the `gguf` package, which it writes with, is. What cannot be converted with
certainty is refused: other architectures, scaled rotary embeddings, pre-tokenizers that llama.cpp has no name for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf as format_
import numpy as np

from tunesmith.errors import ModelError, RunError
from tunesmith.exporting import weights
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.models import pretrained

FILE = "model.gguf"
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""transformers' model type -> llama.cpp's architecture."""
QUANTIZATIONS = {
    "float32": (format_.GGMLQuantizationType.F32, format_.LlamaFileType.ALL_F32),
    "float16": (format_.GGMLQuantizationType.F16, format_.LlamaFileType.MOSTLY_F16),
    "q8_0": (format_.GGMLQuantizationType.Q8_0, format_.LlamaFileType.MOSTLY_Q8_0),
}
BLOCK = 32
"""Numbers that share a scale in Q8_0; rows that are not a multiple of it are written in float16."""
PRE_TOKENIZERS = {
    "ByteLevel": "gpt-2",
    "Digits,ByteLevel": "smollm",
    r"Split:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+,ByteLevel": "llama-bpe",
    r"Split:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+,ByteLevel": "qwen2",
}
"""The steps of a pre-tokenizer -> llama.cpp's name for it (`tokenizer.ggml.pre`)."""


def gguf(source: ExportSource, folder: Path) -> Exported:
    """Write one GGUF file with weights, tokenizer and chat template; in float16 unless another precision is chosen."""
    source.require_precision("gguf", "float32", "float16", "q8_0")
    if source.parts.chat is None:
        raise RunError(
            f"GGUF is for causal language models, and this is a {source.method} model",
            do="export --to onnx or safetensors",
        )
    precision = "float16" if source.precision == "auto" else source.precision
    write(folder / FILE, weights.merged(source), source.parts.tokenizer, precision, source.folder.parent.name)
    restored = source.predictor.with_model(pretrained.from_gguf(folder / FILE).to(source.parts.model.device))
    return Exported(restored.logits, "transformers, which read the file back", precision == "float32", timed=False)


def write(path: Path, model: Any, tokenizer: Any, precision: str, title: str) -> None:
    """Write a model and its tokenizer. precision: of the matrices; vectors stay in float32. title: the model's name."""
    config = model.config
    architecture = _architecture(config)
    quantization, file_type = QUANTIZATIONS[precision]
    writer = format_.GGUFWriter(path, architecture)
    writer.add_name(title)
    writer.add_file_type(file_type)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    kind = next(key for key, name in format_.MODEL_ARCH_NAMES.items() if name == architecture)
    names = format_.get_tensor_name_map(kind, config.num_hidden_layers)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for key, tensor in model.state_dict().items():
        if tied and key == "lm_head.weight":  # llama.cpp uses the embedding
            continue
        name = names.get_name(key, (".weight", ".bias"))
        if name is None:
            raise ModelError(f"GGUF has no name for {key}", do="export --to safetensors")
        array = tensor.detach().float().cpu().numpy()
        if architecture == "llama" and (".q_proj." in key or ".k_proj." in key):
            # llama.cpp rotates neighbouring rows, transformers the two halves of a head
            heads = config.num_attention_heads if ".q_proj." in key else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        array = np.ascontiguousarray(array)
        if array.ndim == 1 or precision == "float32":
            writer.add_tensor(name, array)
        else:
            stored = format_.GGMLQuantizationType.F16 if array.shape[-1] % BLOCK else quantization
            writer.add_tensor(name, format_.quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _architecture(config: Any) -> str:
    """Return llama.cpp's name of an architecture. Raises ModelError for those that `write` does not know."""
    kind = config.model_type
    rope = getattr(config, "rope_parameters", None) or {}
    window = getattr(config, "use_sliding_window", kind == "mistral") and config.sliding_window
    if kind not in ARCHITECTURES or rope.get("rope_type", "default") != "default" or window:
        why = kind if kind not in ARCHITECTURES else f"{kind} with {'a sliding window' if window else rope}"
        raise ModelError(
            f"a {kind} model cannot be written as GGUF here",
            expected=f"{', '.join(ARCHITECTURES)}, with plain rotary positions",
            found=why,
            do="export --to safetensors, and run llama.cpp's convert_hf_to_gguf.py on the folder",
        )
    return ARCHITECTURES[kind]


def _add_tokenizer(writer: Any, tokenizer: Any, rows: int) -> None:
    """Add the tokens by id with their types, merges, special tokens and the chat template; other rows are unused."""
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
    writer.add_chat_template(tokenizer.chat_template)


def adds_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer puts its bos token before every text, as llama.cpp then does too."""
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])


def pre_tokenizer_name(backend: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the pre-tokenizer in a tokenizer.json. Raises ModelError where it has none."""
    steps = backend["model"]["type"] + " of " + _steps(backend.get("pre_tokenizer") or {})
    name = PRE_TOKENIZERS.get(steps.removeprefix("BPE of "))
    if name is None or backend["model"].get("byte_fallback"):
        raise ModelError(
            "llama.cpp has no known name for this tokenizer's pre-tokenizer",
            expected="byte-level BPE as in GPT-2, SmolLM, Llama 3 or Qwen 2",
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
    plain = {"ByteLevel": not step.get("add_prefix_space"), "Digits": step.get("individual_digits")}
    return kind if plain.get(kind) else f"{kind} {dict(step)}"
