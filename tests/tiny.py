"""Tiny models of real architectures with tokenizers of their kind, built on the spot; and texts they can learn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.manifest import Manifest
from tunesmith.types import DataSummary, Quantiles, SplitSummary

WORDS = {
    "sport": ["goal", "match", "team", "coach", "league", "score"],
    "tech": ["chip", "code", "server", "phone", "data", "robot"],
    "world": ["election", "treaty", "border", "minister", "summit", "vote"],
}
FILLER = ["the", "a", "of", "in", "on", "with", "and", "for", "new", "last", "first", "great", "small", "big", "old"]

BERT_LIKE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
DECODER_LIKE = BERT_LIKE | {"max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SIZES: dict[str, dict[str, Any]] = {
    "bert": BERT_LIKE | {"max_position_embeddings": 128},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 128},
    "roberta": BERT_LIKE | {"max_position_embeddings": 130, "pad_token_id": 0},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
    "deberta": BERT_LIKE
    | {
        "max_position_embeddings": 128,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "pooler_hidden_size": 32,
    },
    "modernbert": BERT_LIKE
    | {
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "attn_implementation": "eager",
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "bos_token_id": 3, "eos_token_id": 3},
    "llama": DECODER_LIKE | {"num_key_value_heads": 1},
    "qwen2": DECODER_LIKE | {"num_key_value_heads": 1},
    "qwen3": DECODER_LIKE | {"num_key_value_heads": 1, "head_dim": 16},
    "opt": DECODER_LIKE | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gpt_neox": DECODER_LIKE,
}
TEMPLATES = {
    "xlnet": ("$A [SEP] [CLS]", "$A [SEP] $B:1 [SEP]:1 [CLS]:2"),
    "gpt2": ("$A", "$A $B"),
}
DEFAULT_TEMPLATE = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")


def texts(rows: int, seed: int = 0, labels: Sequence[str] = tuple(WORDS)) -> list[tuple[str, str]]:
    """(text, label) pairs of unequal lengths: two words of the label among fillers, and sometimes a wrong one."""
    draw = random.Random(seed)
    found = []
    for number in range(rows):
        label = labels[number % len(labels)]
        words = draw.choices(WORDS[label], k=2) + draw.choices(FILLER, k=draw.randint(2, 14))
        if draw.random() < 0.3:
            words += draw.choices(WORDS[draw.choice(labels)], k=1)
        draw.shuffle(words)
        found.append((" ".join([*words, str(number)]), label))
    return found


def tokenizer(family: str) -> Any:
    """A word-level tokenizer with the special tokens and the padding side of a family."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w for ws in WORDS.values() for w in ws}), *FILLER]
    vocabulary = {word: index for index, word in enumerate(words + [str(digit) for digit in range(100)])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    single, pair = TEMPLATES.get(family, DEFAULT_TEMPLATE)
    raw.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    types = [] if family in ("gpt2", "distilbert", "roberta", "modernbert") else ["token_type_ids"]
    special = {"unk_token": "[UNK]", "eos_token": "[SEP]"}
    if family != "gpt2":
        special |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    side = "left" if family == "xlnet" else "right"
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        padding_side=side,
        model_max_length=128,
        model_input_names=["input_ids", *types, "attention_mask"],
        **special,
    )


def model(family: str, folder: Path, **changes: Any) -> Path:
    """A folder with a random model of a family and its tokenizer, as a download from a hub would be."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    words = tokenizer(family)
    config = AutoConfig.for_model(family, vocab_size=len(words), **SIZES[family] | changes)
    AutoModel.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def causal(family: str, attention: str = "sdpa", **changes: Any) -> Any:
    """A random causal language model of a family, without dropout; families not in SIZES bring their sizes along."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{"vocab_size": 50} | SIZES.get(family, {}) | changes)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def generator(family: str, folder: Path, **changes: Any) -> Path:
    """A folder with a random causal language model of a family that reads and writes bytes."""
    words = byte_tokenizer()
    special = {
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.eos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    positions = {"n_positions" if family == "gpt2" else "max_position_embeddings": 512}
    causal(family, **special | positions | {"vocab_size": len(words)} | changes).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def byte_tokenizer(
    merges: Sequence[str] = (), *, bos: str | None = None, eos: str | None = "<eos>", pad: str | None = "<pad>"
) -> Any:
    """A tokenizer of single bytes, so that every text comes back as it was. merges: texts to learn longer tokens from.

    bos: put before every text, as Llama's and OPT's tokenizers do.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    if not merges:  # with merges nothing is split beforehand, and tokens grow across any border
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
    names = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    special = [token for token in names.values() if token]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if not merges else sorted(set("".join(merges)))
    size = len(alphabet) + len(special) + (40 if merges else 0)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    raw.train_from_iterator(merges, trainer)
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    known = {name: token for name, token in names.items() if token}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=10**6, **known)


def manifest(**changes: Any) -> Manifest:
    """What a run of the linear method records at its start."""
    split = SplitSummary(2, "ab" * 32, {"a": 1, "b": 1}, Quantiles(3, 4, 5))
    splits = {"train": split, "validation": split, "test": split}
    data = DataSummary("reviews.csv", ("a", "b"), "cd" * 32, ("test",), splits, ())
    started = Manifest(
        tunesmith="0.1.0",
        name="linear",
        method="linear",
        description="a bag of words",
        seed=42,
        trust_remote_code=False,
        data=data,
        status="running",
    )
    return replace(started, **changes)
