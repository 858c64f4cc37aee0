"""Pack token sequences into one row for a causal model: shared prefixes are computed once, and nothing is padded.

The sequences form a prefix tree; the row lists its nodes depth first. A token attends to itself and its ancestors, and
its position is its depth, so every hidden state equals that of the sequence run alone (tests/parity/test_packing.py).
`set_up` tries whether a model supports this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tunesmith import errors
from tunesmith.data.encode import IGNORE
from tunesmith.errors import ModelError
from tunesmith.models import segment_attention
from tunesmith.models.segment_attention import Segment

Ints = npt.NDArray[np.int64]
Tokens = Sequence[Sequence[int]]
PROBED, FORK = 16, 32
"""Predictions of a sequence that `set_up` compares, and most tokens before the branch that it tries."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences as one row of T tokens, with P predictions to learn at U places of it."""

    ids: torch.Tensor
    """1 x T."""
    positions: torch.Tensor
    """1 x T: depth in the tree, the position the token has in its sequences."""
    segments: tuple[Segment, ...]
    """The nodes of the tree in their order: which tokens each attends to."""
    places: tuple[torch.Tensor, ...]
    """For each sequence, in the order of `pack`, the places of its tokens in the row; stays on the CPU."""
    target_places: torch.Tensor
    """U, ascending: the places with predictions, where the head must run."""
    target_index: torch.Tensor
    """P, ascending: the place of each prediction, as an index into the U. Sequences that share a place predict each."""
    target_ids: torch.Tensor
    """P: the token to predict."""

    def to(self, device: torch.device) -> Packed:
        tensors = ("ids", "positions", "target_places", "target_index", "target_ids")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    def mask(self) -> torch.Tensor:
        """Return 1 x 1 x T x T: True where a token (row) attends to a token (column): itself or an ancestor."""
        mask_TT = torch.zeros(self.ids.shape[1], self.ids.shape[1], dtype=torch.bool)
        for segment in self.segments:
            allowed = torch.split(segment.mask(), [end - start for start, end in segment.ranges], 1)
            for (start, end), part in zip(segment.ranges, allowed, strict=True):
                mask_TT[segment.start : segment.end, start:end] = part
        return mask_TT[None, None].to(self.ids.device)


def pack(sequences: Tokens, labels: Tokens) -> Packed:
    """Return one row of all sequences. labels: for each token its id if it is learned, else -100.

    A learned token is predicted at the token before it; a sequence's first label has none and does not count.
    """
    order, tokens, shared = _sort(sequences)
    paths: list[Ints] = []  # the places of each sequence's tokens in the row
    segments: list[Segment] = []
    total = 0
    for ids, count in zip(tokens, shared, strict=True):
        start, total = total, total + len(ids) - count
        before = paths[-1][:count] if paths else np.empty(0, np.int64)
        paths.append(np.concatenate([before, np.arange(start, total)]))
        if total > start:
            segments.append(Segment(start, total, _ranges(before), causal=True))
    places: list[Ints] = [paths[0]] * len(order)
    for position, path in zip(order, paths, strict=True):
        places[position] = path
    new = [ids[count:] for ids, count in zip(tokens, shared, strict=True)]
    depths = [np.arange(count, len(ids)) for ids, count in zip(tokens, shared, strict=True)]
    return Packed(
        torch.from_numpy(np.concatenate(new))[None],
        torch.from_numpy(np.concatenate(depths))[None],
        tuple(segments),
        tuple(torch.from_numpy(path) for path in places),
        *_targets(places, labels),
    )


def plan(sequences: Tokens, max_tokens: int) -> list[list[int]]:
    """Return positions in groups whose packed rows have at most `max_tokens` (a longer sequence gets its own row).

    Neighbours in lexicographic order make as few groups as possible, and then the largest group is as small as
    possible: the cost of attention grows with the square of a row.
    """
    order, tokens, shared = _sort(sequences)
    lengths = [len(ids) for ids in tokens]
    fewest = len(_grouped(lengths, shared, max_tokens))
    low, high = 1, max_tokens
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_grouped(lengths, shared, middle)) <= fewest else (middle + 1, high)
    return [[order[i] for i in group] for group in _grouped(lengths, shared, low)]


def partition(sequences: Tokens, parts: int) -> list[list[int]]:
    """Return positions in `parts` shares of similar work, some perhaps empty; common prefixes stay together."""
    order, tokens, shared = _sort(sequences)
    new = [len(ids) - count for ids, count in zip(tokens, shared, strict=True)]
    total = max(1, sum(new))
    shares: list[list[int]] = [[] for _ in range(parts)]
    for position, count, done in zip(order, new, accumulate(new), strict=True):
        middle = (2 * done - count) / (2 * total)
        shares[min(int(middle * parts), parts - 1)].append(position)
    return shares


def unpack(hidden_TD: torch.Tensor, packed: Packed) -> list[torch.Tensor]:
    """Return the hidden states of each sequence (L x D), in the order of `pack`."""
    return [hidden_TD[place] for place in packed.places]


def hidden_states(model: nn.Module, packed: Packed) -> torch.Tensor:
    """Return the hidden states that the head of a causal model would get at each of the T places: T x D."""
    return run_body(model, inputs(model, packed))[0]


def inputs(model: nn.Module, packed: Packed) -> dict[str, Any]:
    """Return a packed row as inputs of a causal model's forward."""
    ids, dtype = packed.ids, inner(model).dtype
    row: dict[str, Any] = {"input_ids": ids, "position_ids": packed.positions}
    if inner(model).config._attn_implementation == segment_attention.NAME and ids.device.type == "cpu":
        # the mask only says that no other is wanted
        return row | {"attention_mask": torch.zeros(1, 1, 1, 1, dtype=dtype), "segments": packed.segments}
    # Added to attention scores, as `sdpa` and `eager` both expect; `eager` would add True as 1.
    mask_11TT = torch.zeros(1, 1, ids.shape[1], ids.shape[1], dtype=dtype, device=ids.device)
    return row | {"attention_mask": mask_11TT.masked_fill_(~packed.mask(), torch.finfo(dtype).min)}


def run_body(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the hidden states that the head of a causal model would get, B x T x D, for inputs of its forward."""
    hidden_BTD, _ = run_trimmed(model, {**inputs, "use_cache": False}, lambda hidden_BTD: hidden_BTD[:, :1])
    return hidden_BTD.to(inner(model).dtype)  # autocast may end in another dtype than the head's


def inner(model: nn.Module) -> Any:
    """Return the transformers model inside its wrappers for data parallelism and adapters."""
    unwrapped: Any = model.module if isinstance(model, DistributedDataParallel) else model
    return unwrapped.get_base_model() if hasattr(unwrapped, "get_base_model") else unwrapped


def head(model: nn.Module) -> nn.Module:
    """Return the output embedding: N x D -> N x V. Raises ModelError for a model without one."""
    module: nn.Module | None = inner(model).get_output_embeddings()
    if module is None:
        raise ModelError(
            f"{type(inner(model)).__name__} has no output embedding", expected="a causal language model with a head"
        )
    return module


def run_trimmed(
    model: nn.Module, inputs: Mapping[str, object], select: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, Any]:
    """Run the model's own forward, with its head only on what `select` takes from the hidden states (B x T x D).

    Returns the hidden states as they reached the head, and the model's output. The forward of the outermost module
    runs, because PEFT and data-parallel training depend on it.
    """
    seen: list[torch.Tensor] = []

    def trim(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        seen.append(args[0])
        return select(args[0]), *args[1:]

    hook = head(model).register_forward_pre_hook(trim)
    try:
        output = model(**inputs)
    finally:
        hook.remove()
    if not seen:
        raise ModelError(f"{type(inner(model)).__name__} does not call its output embedding in its forward")
    return seen[0], output


def set_up(
    model: nn.Module, sequences: Tokens, labels: Tokens, tolerance: float = 1e-4, *, by_segments: bool = True
) -> str | None:
    """Set up a causal model for packed rows. Returns None if they give the model's own logits, else the reason.

    sequences: all that will be packed, because the longest reach decides about sliding windows. tolerance: largest
    difference of two logits, relative to the largest logit. by_segments: on a CPU, attention runs segment by segment
    where the model allows that; else, and where layers are compiled already, with a mask of the whole row.
    """
    window, longest = sliding_window(model), reach(labels)
    if window and longest > window:
        return f"its layers attend to {window} tokens, and a sequence has {longest}"
    probes, before = _probes(sequences, labels), inner(model).config._attn_implementation
    by_segments = by_segments and not any(module._compiled_call_impl for module in model.modules())
    if by_segments and before == "sdpa" and inner(model).device.type == "cpu":
        segment_attention.set_attention(inner(model), segment_attention.NAME)
        if _disagrees(model, *probes, tolerance) is None:
            return None
        segment_attention.set_attention(inner(model), before)
    return _disagrees(model, *probes, tolerance)


def _disagrees(model: nn.Module, sequences: Tokens, labels: Tokens, tolerance: float) -> str | None:
    try:
        with evaluating(model), torch.no_grad():
            difference = _difference(model, sequences, labels)
    except Exception as error:  # models may raise anything here; it is the reason
        return f"it cannot run a packed row ({errors.summary(error)})"
    if difference <= tolerance:  # not so for NaN
        return None
    return f"its logits differ by {difference:.1e} of the largest (at most {tolerance:.0e} is allowed)"


def _ranges(places: Ints) -> tuple[tuple[int, int], ...]:
    """Return ascending places as ranges of neighbours, each as start and end."""
    parts = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1) if len(places) else []
    return tuple((int(part[0]), int(part[-1]) + 1) for part in parts)


def _sort(sequences: Tokens) -> tuple[list[int], list[Ints], list[int]]:
    """Return lexicographic order, the sequences in that order, and how many tokens each shares with the one before."""
    lists = [list(ids) for ids in sequences]
    order = sorted(range(len(lists)), key=lists.__getitem__)
    tokens = [np.asarray(lists[i], np.int64) for i in order]
    shared = [0] * len(tokens)
    for i, (a, b) in enumerate(pairwise(tokens), 1):
        shorter = min(len(a), len(b))
        (differ,) = np.nonzero(a[:shorter] != b[:shorter])
        shared[i] = int(differ[0]) if len(differ) else shorter
    return order, tokens, shared


def _targets(places: Sequence[Ints], labels: Tokens) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return unique places, the index of each prediction into them, and the id to predict; sorted by place."""
    before, ids = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for path, row in zip(places, labels, strict=True):
        label_L = np.asarray(row, np.int64)
        if label_L.shape != path.shape:
            raise ValueError(f"a sequence of {len(path)} tokens has {len(label_L)} labels")
        learned = label_L[1:] != IGNORE
        before.append(path[:-1][learned])
        ids.append(label_L[1:][learned])
    unique_U, index_P = np.unique(np.concatenate(before), return_inverse=True)
    order_P = np.argsort(index_P, kind="stable")
    return (
        torch.from_numpy(unique_U),
        torch.from_numpy(index_P[order_P].astype(np.int64)),
        torch.from_numpy(np.concatenate(ids)[order_P]),
    )


def _grouped(lengths: Sequence[int], shared: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return neighbours in the fewest possible groups: each is as full as `max_tokens` allows."""
    groups: list[list[int]] = []
    used = 0
    for i, (length, count) in enumerate(zip(lengths, shared, strict=True)):
        if groups and used + length - count <= max_tokens:
            groups[-1].append(i)
            used += length - count
        else:
            groups.append([i])
            used = length
    return groups


def sliding_window(model: nn.Module) -> int | None:
    """Return how many tokens the model's layers attend to, if its configuration has a limit."""
    config = inner(model).config.get_text_config()
    limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((limit for limit in limits if limit), default=None)


def reach(labels: Tokens) -> int:
    """Return the largest number of tokens, in any sequence, up to the last one that makes a prediction."""
    return max(map(_reach, labels))


def _reach(labels: Sequence[int]) -> int:
    return max((i for i, label in enumerate(labels) if label != IGNORE), default=0)


def _probes(sequences: Tokens, labels: Tokens) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Return the shortest sequence, the one with the longest reach, and a short branch of that one.

    The tree forks at a root, or in a prefix that both share, and below it. Tokens after the last prediction are left
    out: they change none.
    """
    ends = [_reach(row) + 1 for row in labels]
    near = min(range(len(sequences)), key=lambda i: (ends[i] == 1, ends[i]))  # those without a prediction show nothing
    far = max(range(len(sequences)), key=lambda i: (ends[i], len(sequences[i])))
    end = ends[far] if ends[far] > 1 else len(sequences[far])
    fork = min(end // 2, FORK)
    branch = [*sequences[far][:fork], *reversed(sequences[far][max(fork, end - PROBED) : end])]
    probes = [sequences[near][: ends[near]], sequences[far][:end], branch]
    return probes, [labels[near][: ends[near]], labels[far][:end], [IGNORE] * fork + branch[fork:]]


def _difference(model: nn.Module, sequences: Tokens, labels: Tokens) -> float:
    """Return the largest difference between packed and separate sequences, relative to the largest logit."""
    packed = pack(sequences, labels).to(inner(model).device)
    output_head = head(model)
    worst, scale = torch.zeros(()), torch.zeros(())
    for ids, row, hidden_LD in zip(sequences, labels, unpack(hidden_states(model, packed), packed), strict=True):
        at = [i - 1 for i, label in enumerate(row) if i and label != IGNORE][-PROBED:]  # those of the longest context
        if at:
            inputs = {"input_ids": torch.tensor([list(ids)], device=packed.ids.device), "use_cache": False}
            _, output = run_trimmed(model, inputs, lambda hidden_1LD: hidden_1LD[:, at])  # noqa: B023  called at once
            plain_NV = output.logits[0].float().cpu()
            # torch.maximum keeps NaN, max() might not
            worst = torch.maximum(worst, (output_head(hidden_LD[at]).float().cpu() - plain_NV).abs().max())
            scale = torch.maximum(scale, plain_NV.abs().max())
    return float(worst / scale) if scale else float(worst)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within this, the model is in eval mode; afterwards every module is in the mode it had before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
