"""Run an encoder on texts concatenated in one row, so that nothing is padded (as in arXiv:2208.08124).

Except for attention, a layer processes each token by itself; attention runs text by text. Classification heads of
encoders read the first token of each text, and get only these; in eval mode, so does what follows the attention of the
last layer. A body without a head gives the hidden states of the row. `find` tries whether a model supports this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from typing import Any, cast

import torch
from torch import nn

from tunesmith import errors
from tunesmith.data.batches import Batch, Padded, Unpadded
from tunesmith.data.encode import Encoded
from tunesmith.models import dropout, packing, pooling, segment_attention
from tunesmith.models.segment_attention import Segment

TOLERANCE = 1e-4
"""Largest difference from the outputs of a padded batch, relative to the largest output."""


def find(model: nn.Module, tokenizer: Any) -> Unpadded | str:
    """Set up a classifier or a body for unpadded texts, and return their layout; or why they have to be padded.

    The model still computes padded batches as before.
    """
    ids = [i for i in range(min(len(tokenizer), 1000)) if i not in tokenizer.all_special_ids]
    rows = [Encoded(str(n), {"input_ids": ids[-n:]}) for n in (3, 9, 5)]  # any tokens will do
    config = cast(Any, packing.inner(model)).config
    implementation = config._attn_implementation
    if implementation not in ("sdpa", segment_attention.NAME):
        return f"its attention is {implementation}, not sdpa"
    padded = Padded(tokenizer)
    with packing.evaluating(model), torch.no_grad():
        batch = padded.collate(rows).to(_device(model))
        expected_BK = _values(run(model, batch), batch)
        segment_attention.set_attention(packing.inner(model), segment_attention.NAME)
        reason = "its outputs differ"
        for first in (0, int(config.pad_token_id or 0) + 1):  # RoBERTa counts positions from the padding id + 1
            layout = Unpadded(first)
            batch = layout.collate(rows).to(_device(model))
            try:
                found = [_values(_run(model, batch, narrow), batch) for narrow in (False, True)]
            except Exception as error:  # models may raise anything here; it is the reason
                reason = errors.summary(error)
                break
            if all(_agree(logits_BK, expected_BK) for logits_BK in found):
                dropout.replace(model)
                return layout
    segment_attention.set_attention(packing.inner(model), implementation)
    return f"it cannot run texts in one row ({reason})"


def run(model: nn.Module, batch: Batch) -> Any:
    """Return the model's output for a padded or an unpadded batch: of a classifier, with a row for each text."""
    # In training, dropout would be drawn for fewer tokens, and a seed would give other numbers than before.
    return model(**batch.inputs) if batch.lengths is None else _run(model, batch, narrow=not model.training)


def _run(model: nn.Module, batch: Batch, narrow: bool) -> Any:
    """Run an unpadded batch. narrow: in the last layer, only the first token of each text goes on after attention."""
    lengths, inner = batch.lengths or (), packing.inner(model)
    with nullcontext() if inner.base_model is inner else _first_tokens(model, lengths, narrow):
        ends = list(accumulate(lengths))
        segments = tuple(map(Segment, [0, *ends], ends))
        return model(**batch.inputs, segments=segments)


def _values(output: Any, batch: Batch) -> torch.Tensor:
    """Return B x K: the logits of each text, or the mean of a body's hidden states."""
    return torch.as_tensor(
        output.logits if hasattr(output, "logits") else pooling.pool(output.last_hidden_state, batch, "mean")
    )


def _agree(logits_BK: torch.Tensor, expected_BK: torch.Tensor) -> bool:
    if logits_BK.shape != expected_BK.shape:
        return False
    difference = (logits_BK - expected_BK).abs().max() / expected_BK.abs().max()
    return bool(difference <= TOLERANCE)  # not so for NaN


@contextmanager
def _first_tokens(model: nn.Module, lengths: Sequence[int], narrow: bool) -> Iterator[None]:
    """Within this, head and pooler get the first token of each text: 1 x T x D becomes B x 1 x D."""
    body: Any = cast(Any, packing.inner(model)).base_model
    ends = torch.tensor(lengths).cumsum(0)
    starts_B = ends - torch.tensor(lengths)

    def pick(hidden: torch.Tensor) -> torch.Tensor:
        if hidden.shape[:2] == (len(lengths), 1):  # picked before
            return hidden
        return hidden[0, starts_B.to(hidden.device)][:, None]

    def before(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(pick(states) for states in args)

    def after_body(module: nn.Module, args: Any, output: Any) -> Any:
        output.last_hidden_state = pick(output.last_hidden_state)
        return output

    narrowed = (getattr(body, "pooler", None), _after_attention(body) if narrow else None)
    hooks = [module.register_forward_pre_hook(before) for module in narrowed if module is not None]
    hooks.append(body.register_forward_hook(after_body))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _after_attention(body: Any) -> nn.Module | None:
    """Return the module in the last layer of BERT, DistilBERT and their like that adds attention to its input.

    None for other models, such as ALBERT, whose layers are one and the same.
    """
    count = getattr(body.config, "num_hidden_layers", None)
    layers = next((item for item in body.modules() if isinstance(item, nn.ModuleList) and len(item) == count), None)
    if layers is None:
        return None
    norm = getattr(layers[-1], "sa_layer_norm", None)  # DistilBERT's
    output = getattr(getattr(layers[-1], "attention", None), "output", None)  # of BERT and its relatives
    return output if isinstance(getattr(output, "LayerNorm", None), nn.LayerNorm) else norm


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
