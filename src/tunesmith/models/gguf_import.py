"""Unpack GGUF files (llama.cpp's format) to folders of plain Hugging Face files, once, so that models can be trained.

transformers reads GGUF, but slowly, and a model that it loaded from there may refuse to be saved as quantized. Here
weights are unpacked to float32 and written as safetensors, with the tokenizer and the chat template of the file.
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

from tunesmith import assets, errors
from tunesmith.console import say
from tunesmith.errors import ModelError

SUFFIX = ".gguf"


def unpack(path: Path) -> Path:
    """Return a folder with config.json, safetensors and tokenizer from a GGUF file; written at first use and cached.

    The cache is keyed by the file's SHA-256. Raises ModelError if there is no such file, or if transformers cannot read
    its architecture.
    """
    from transformers import AutoTokenizer

    if not path.is_file():
        raise ModelError(f"{path} does not exist", expected="a GGUF file with one causal language model")
    state = path.stat()
    target = assets.cache() / f"gguf-{_sha256(path, state.st_size, state.st_mtime_ns)[:16]}"
    if not target.exists():
        say(f"unpacking {path.name} to float32 safetensors, once ({target})")
        start = time.monotonic()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:  # the target appears complete or not at all
            folder = Path(scratch) / "model"
            model = read(path)
            with _explained(path):
                tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            del model.config._name_or_path  # the title in the file, which is not a name to load it by
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            try:
                folder.rename(target)
            except OSError:
                if not target.exists():  # another process may have been first, with the same bytes
                    shutil.copytree(folder, target)
        say(f"unpacked in {time.monotonic() - start:.0f} s")
    return target


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Return the hash of a file's content; size and changed (ns) belong to the cache's key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> Any:
    """Load the model in a GGUF file in float32."""
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
    except Exception as error:  # a parser of foreign binary files: whatever it raises, the file is the cause
        raise ModelError(
            f"cannot read {path}",
            expected="a GGUF file with one causal language model",
            found=errors.summary(error),
            do="give the model's Hugging Face files instead",
        ) from error
