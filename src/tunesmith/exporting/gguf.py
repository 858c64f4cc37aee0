"""Causal language models of Llama's kind as one GGUF file, for llama.cpp and what stands on it. The only door to gguf.

llama.cpp's own converter is not on PyPI; the `gguf` package, which it writes with, is. What is not known for sure
is refused: another architecture, scaled rotations, a tokenizer whose way of splitting llama.cpp has no name for.
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
from tunesmith.protocols import Logits

FILE = "model.gguf"
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""transformers' name -> llama.cpp's."""
KINDS = {
    "float32": (format_.GGMLQuantizationType.F32, format_.LlamaFileType.ALL_F32),
    "float16": (format_.GGMLQuantizationType.F16, format_.LlamaFileType.MOSTLY_F16),
    "q8_0": (format_.GGMLQuantizationType.Q8_0, format_.LlamaFileType.MOSTLY_Q8_0),
}
BLOCK = 32
"""Numbers that share a scale in Q8_0; rows that are no multiple of it are written in 16 bits."""
SPLITS = {
    "ByteLevel": "gpt-2",
    "Digits,ByteLevel": "smollm",
    r"Split:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+,ByteLevel": "llama-bpe",
    r"Split:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+,ByteLevel": "qwen2",
}
"""How a tokenizer splits a text before it merges characters -> llama.cpp's name for it (`tokenizer.ggml.pre`)."""


def gguf(trained: ExportSource, folder: Path) -> Exported:
    """One GGUF file with weights, tokenizer and chat template; float16 unless float32 or q8_0 is asked for."""
    trained.allow("gguf", "float32", "float16", "q8_0")
    if trained.parts.chat is None:
        raise RunError(
            f"GGUF is for causal language models, and this is a {trained.method}",
            do="export --to onnx or safetensors",
        )
    precision = "float16" if trained.precision == "auto" else trained.precision
    model = weights.merged(trained)
    write(folder / FILE, model, trained.parts.tokenizer, precision, trained.folder.parent.name)
    restored = trained.predictor.with_model(pretrained.from_gguf(folder / FILE).to(trained.parts.model.device))
    return Exported(restored.logits, "transformers, which read the file back", precision == "float32", timed=False)


def write(path: Path, model: Any, tokenizer: Any, precision: str, title: str) -> None:
    """Write a model and its tokenizer. precision: of the matrices; vectors stay in float32. title: the model's name."""
    name, config = _architecture(model), model.config
    kind, about = KINDS[precision]
    writer = format_.GGUFWriter(path, name)
    writer.add_name(title)
    writer.add_file_type(about)
    _add_sizes(writer, config)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    architecture = next(key for key, text in format_.MODEL_ARCH_NAMES.items() if text == name)
    names = format_.get_tensor_name_map(architecture, config.num_hidden_layers)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for key, tensor in model.state_dict().items():
        if tied and key == "lm_head.weight":  # llama.cpp takes the embedding itself
            continue
        gguf_name = names.get_name(key, (".weight", ".bias"))
        if gguf_name is None:
            raise ModelError(f"GGUF has no name for {key}", do="export --to safetensors")
        array = np.ascontiguousarray(_permuted(key, tensor.detach().float().cpu().numpy(), name, config))
        if array.ndim == 1 or precision == "float32":
            writer.add_tensor(gguf_name, array)
        else:
            stored = format_.GGMLQuantizationType.F16 if array.shape[-1] % BLOCK else kind
            writer.add_tensor(gguf_name, format_.quantize(array, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _architecture(model: Any) -> str:
    kind = model.config.model_type
    rope = getattr(model.config, "rope_parameters", None) or {}
    window = getattr(model.config, "use_sliding_window", kind == "mistral") and model.config.sliding_window
    if kind not in ARCHITECTURES or rope.get("rope_type", "default") != "default" or window:
        why = kind if kind not in ARCHITECTURES else f"{kind} with {'a sliding window' if window else rope}"
        raise ModelError(
            f"a {kind} model cannot be written as GGUF here",
            expected=f"{', '.join(ARCHITECTURES)}, with plain rotary positions",
            found=why,
            do="export --to safetensors, and run llama.cpp's convert_hf_to_gguf.py on the folder",
        )
    return ARCHITECTURES[kind]


def _add_sizes(writer: Any, config: Any) -> None:
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: Any, rows: int) -> None:
    """Tokens by id with their kinds, merges, special tokens and the chat template; rows without a token are unused."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    pre = split_name(backend)
    known = {index: text for text, index in tokenizer.get_vocab().items()}
    types = format_.TokenType
    kinds = [types.NORMAL if index in known else types.UNUSED for index in range(rows)]
    for index, token in tokenizer.added_tokens_decoder.items():
        if index < rows:
            kinds[index] = types.CONTROL if token.special else types.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([known.get(index, f"[PAD{index}]") for index in range(rows)])
    writer.add_token_types([int(kind) for kind in kinds])
    merges = backend["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for special in ("bos", "eos", "unk", "pad"):
        if (index := getattr(tokenizer, f"{special}_token_id")) is not None:
            getattr(writer, f"add_{special}_token_id")(index)
    writer.add_add_bos_token(begins(tokenizer))
    writer.add_add_eos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def begins(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its first token before every text by itself, as llama.cpp then does too."""
    return bool(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])


def split_name(backend: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer (tokenizer.json) splits texts. Raises ModelError where it has none."""
    splits = backend["model"]["type"] + " of " + _splits(backend.get("pre_tokenizer") or {})
    name = SPLITS.get(splits.removeprefix("BPE of "))
    if name is None or backend["model"].get("byte_fallback"):
        raise ModelError(
            "llama.cpp has no name known here for how this tokenizer splits a text",
            expected="byte-level BPE as of GPT-2, SmolLM, Llama 3 or Qwen 2",
            found=splits[:200],
            do="export --to safetensors, and run llama.cpp's convert_hf_to_gguf.py on the folder",
        )
    return name


def _splits(step: Mapping[str, Any]) -> str:
    kind = str(step.get("type"))
    if kind == "Sequence":
        return ",".join(map(_splits, step["pretokenizers"]))
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return f"Split:{step['pattern'].get('Regex')}"
    plain = {"ByteLevel": not step.get("add_prefix_space"), "Digits": step.get("individual_digits")}
    return kind if plain.get(kind) else f"{kind} {dict(step)}"


def _permuted(key: str, array: Logits, name: str, config: Any) -> Logits:
    """Put the rows of Llama's queries and keys in llama.cpp's order: it rotates neighbours, transformers halves."""
    if name != "llama" or not any(f".{part}." in key for part in ("q_proj", "k_proj")):
        return array
    heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
