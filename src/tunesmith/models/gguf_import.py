"""GGUF files (llama.cpp's format) as folders of plain Hugging Face files: unpacked once, trainable, savable.

transformers reads GGUF, but slowly, and a model loaded so may keep a mark of its quantization and refuse to be saved.
Here weights are unpacked to float32 and written as safetensors, with the tokenizer and the chat template of the file.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from tunesmith import assets
from tunesmith.console import say
from tunesmith.errors import ModelError

SUFFIX = ".gguf"


def unpack(path: Path) -> Path:
    """The folder with config.json, safetensors and tokenizer made from a GGUF file; made at first use and cached.

    The cache is keyed by the file's SHA-256. Raises ModelError where there is no such file, or transformers cannot
    read its architecture.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}", expected="a GGUF file with one causal language model")
    state = path.stat()
    target = assets.cache() / f"gguf-{_sha256(path, state.st_size, state.st_mtime_ns)[:16]}"
    if not target.exists():
        say(f"unpacking {path.name} to float32 safetensors, once ({target})")
        start = time.monotonic()
        _write(path, target)
        say(f"unpacked in {time.monotonic() - start:.0f} s")
    return target


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, changed: int) -> str:
    """size and changed (ns) make a new file under an old name a new key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, target: Path) -> None:
    """The target appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / "model"
        _convert(path, made)
        try:
            made.rename(target)
        except OSError:
            if not target.exists():  # another process may have been first: its copy comes from the same bytes
                shutil.copytree(made, target)


def _convert(path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    model = read(path)
    with _explained(path):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    del model.config._name_or_path  # the file's own title, which is no name that leads anywhere
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read(path: Path) -> Any:
    """The model in a GGUF file, in float32, without its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    with _explained(path):
        return AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a parser of foreign binary files: whatever it raises, the file is the matter
        raise ModelError(
            f"cannot read {path}",
            expected="a GGUF file with one causal language model",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}",
            do="give the model's Hugging Face files instead",
        ) from error
