"""Causal language models in GGUF files, computed by llama.cpp. Only this module imports llama_cpp."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from tunesmith.errors import MissingExtra, ModelError

FILE = "model.gguf"
BATCH = 2048
"""Tokens that llama.cpp takes in one call."""
BLOCK = 256
"""The cache has room for a multiple of this many tokens."""


class Token(NamedTuple):
    """A token to compute."""

    id: int
    position: int
    sequence: int
    wants_logits: bool = True


def is_installed() -> bool:
    """Return whether llama-cpp-python can be imported."""
    return importlib.util.find_spec("llama_cpp") is not None


def version() -> str:
    """Return what computes a model, with its version."""
    return f"llama.cpp (llama-cpp-python {_bindings().__version__})"


class LlamaCppModel(nn.Module):
    """The model in a folder with model.gguf and config.json, called like those of transformers."""

    device, dtype = torch.device("cpu"), torch.float16  # of logits; of keys and values, as llama.cpp's programs have

    def __init__(self, folder: Path) -> None:
        from transformers import AutoConfig

        super().__init__()
        self.folder, self.config = folder, AutoConfig.from_pretrained(folder)
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # callers ask the parameters for the device

    @classmethod
    def load(cls, folder: Path) -> LlamaCppModel:
        """Return a model that is ready. Raises MissingExtra without llama-cpp-python, ModelError for a damaged file."""
        model = cls(folder)
        _ = model.handle
        return model

    @cached_property
    def api(self) -> Any:
        """The bindings."""
        return _bindings()

    @cached_property
    def handle(self) -> Any:
        """llama.cpp's model, which is loaded at first use."""
        path, settings = str(self.folder / FILE).encode(), self.api.llama_model_default_params()
        handle = self.api.llama_model_load_from_file(path, settings)
        if handle is None:
            raise ModelError(
                f"llama.cpp cannot read {self.folder / FILE}",
                expected=f"a GGUF file that {version()} knows",
                do="pip install --upgrade llama-cpp-python, or export again",
            )
        weakref.finalize(self, self.api.llama_model_free, handle)
        return handle

    @property
    def most_sequences(self) -> int:
        """How many sequences llama.cpp computes at once, at most."""
        return int(self.api.llama_max_parallel_sequences())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> SimpleNamespace:
        """Return `logits`, B x T x V; 0 where attention_mask is 0."""
        logits_BTV = torch.zeros(*input_ids.shape, self.config.vocab_size)
        for row, ids_T in enumerate(input_ids):
            read_T = torch.ones_like(ids_T, dtype=torch.bool) if attention_mask is None else attention_mask[row].bool()
            tokens = [Token(token, position, 0) for position, token in enumerate(ids_T[read_T].tolist())]
            logits_BTV[row, read_T] = Sequences(self, 1).compute(tokens)
        return SimpleNamespace(logits=logits_BTV)

    def save_pretrained(self, folder: Path) -> None:
        """Copy the file and what lies beside it."""
        if folder.resolve() != self.folder.resolve():
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)


class Sequences:
    """Sequences of tokens, numbered from 0, with their keys and values in one cache."""

    def __init__(self, model: LlamaCppModel, number: int) -> None:
        self.model, self.api = model, model.api
        self.lengths, self.capacity = [0] * number, 0
        """Tokens of each sequence, and of all that the cache has room for."""
        self.context: Any = None
        """llama.cpp's, with the cache; made for the first tokens."""
        self.free: Callable[[], Any] = lambda: None
        self.batch = self.api.llama_batch_init(BATCH, 0, 1)
        weakref.finalize(self, self.api.llama_batch_free, self.batch)

    def compute(self, tokens: Sequence[Token]) -> torch.Tensor:
        """Add tokens, those of a sequence in order; return the logits of those that want them, N x V."""
        for token in tokens:
            self.lengths[token.sequence] = token.position + 1
        self._reserve(sum(self.lengths))
        return torch.cat([self._compute(tokens[start : start + BATCH]) for start in range(0, len(tokens), BATCH)])

    def copy(self, source: int, target: int) -> None:
        """Make a sequence that has no tokens the same as another."""
        self.lengths[target] = self.lengths[source]
        self.api.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def remove(self, number: int) -> None:
        """Remove the tokens of a sequence."""
        self.lengths[number] = 0
        self.api.llama_memory_seq_rm(self.memory, number, -1, -1)

    def _compute(self, tokens: Sequence[Token]) -> torch.Tensor:
        batch = self.batch
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token.id, token.position, token.wants_logits
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, token.sequence
        batch.n_tokens = len(tokens)
        if code := self.api.llama_decode(self.context, batch):
            raise ModelError("llama.cpp cannot compute these tokens", found=f"llama_decode returned {code}")
        shape = sum(token.wants_logits for token in tokens), self.model.config.vocab_size
        if not shape[0]:
            return torch.empty(shape)
        return torch.from_numpy(np.ctypeslib.as_array(self.api.llama_get_logits(self.context), shape).copy())

    def _reserve(self, tokens: int) -> None:
        """Make room for so many tokens; sequences under way move to the larger cache."""
        if tokens <= self.capacity:
            return
        under_way = [*self._states()] if self.capacity else []
        self.free()
        self.capacity = -(-max(tokens, 2 * self.capacity) // BLOCK) * BLOCK
        settings = self.api.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.n_batch = self.capacity, len(self.lengths), BATCH
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        settings.kv_unified = True  # sequences share cells, so that a common beginning is not copied
        self.context = self.api.llama_init_from_model(self.model.handle, settings)
        if self.context is None:
            raise ModelError(
                f"llama.cpp cannot make a cache of {self.capacity:,} tokens", do="lower generate.batch_size"
            )
        self.free = weakref.finalize(self, self.api.llama_free, self.context)
        self.memory = self.api.llama_get_memory(self.context)
        for number, state in under_way:
            self.api.llama_state_seq_set_data(self.context, state, len(state), number)

    def _states(self) -> Iterator[tuple[int, Any]]:
        """Yield each sequence that has tokens, with its part of the cache."""
        for number in range(len(self.lengths)):
            if self.api.llama_memory_seq_pos_max(self.memory, number) >= 0:
                state = (ctypes.c_uint8 * self.api.llama_state_seq_get_size(self.context, number))()
                self.api.llama_state_seq_get_data(self.context, state, len(state), number)
                yield number, state


def _bindings() -> Any:
    if not is_installed():
        raise MissingExtra("llama-cpp-python is not installed", do="pip install 'tunesmith[llama-cpp]'")
    import llama_cpp

    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # else it prints all that llama.cpp says
    return llama_cpp
