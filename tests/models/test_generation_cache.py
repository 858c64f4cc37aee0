"""What the cache of a generator holds, and for how long."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import torch

from tests import tiny
from tunesmith.models import generation_cache, pretrained
from tunesmith.recipe import Model


def test_a_cache_grows_with_the_answers_and_is_freed_at_once(tmp_path: Path) -> None:
    settings = Model(name_or_path=str(tiny.generator("llama", tmp_path / "llama")))
    model = pretrained.causal_lm(settings, pretrained.tokenizer(settings), 0).module
    gc.collect()
    gc.disable()  # a circle of objects would wait for the collector, which counts objects and not their bytes
    try:
        with torch.inference_mode():
            cache = generation_cache.of(model, 64)
            cache.start([[1, 2, 3], [1, 2, 4, 5]])
            cache.advance([6, 7])
            layers = cache.cache.layers  # type: ignore[attr-defined]
            assert {layer.keys.shape[0] for layer in layers} == {2}
            cache.start([[1, 2]] * 3)
            assert {layer.keys.shape[0] for layer in layers} == {8}  # twice as many as before
        tensors = [weakref.ref(part) for layer in layers for part in (layer.keys, layer.values)]
        assert tensors
        del cache, layers
        assert [tensor() for tensor in tensors if tensor() is not None] == []
    finally:
        gc.enable()
