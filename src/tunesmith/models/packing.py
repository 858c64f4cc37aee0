"""Many token sequences as one row for a causal model: shared prefixes are computed once, and nothing is padded.

The sequences form a prefix tree; the row lists its nodes depth first. A token attends to itself and its ancestors, and
its position is its depth, so every hidden state equals that of the sequence run alone (tests/parity/test_packing.py).
Whether a model can be run so is never assumed: `disagrees` tries.
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

from tunesmith.data.encode import IGNORE
from tunesmith.errors import ModelError

Ints = npt.NDArray[np.int64]
Tokens = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences as one row of T tokens, with P things to learn at U places of it."""

    ids: torch.Tensor
    """1 x T."""
    positions: torch.Tensor
    """1 x T: depth in the tree, the position the token has in its sequences."""
    mask: torch.Tensor
    """1 x 1 x T x T: true where a token (row) attends to a token (column), itself and its ancestors."""
    places: tuple[torch.Tensor, ...]
    """For each sequence, in the order given, the places of its tokens in the row; stays on the CPU."""
    target_places: torch.Tensor
    """U, ascending: the places at which something is predicted, where the head must run."""
    target_index: torch.Tensor
    """P, ascending: which of the U each prediction is made at. Sequences that share a place predict there each."""
    target_ids: torch.Tensor
    """P: the token each prediction should give."""

    def to(self, device: torch.device) -> Packed:
        tensors = ("ids", "positions", "mask", "target_places", "target_index", "target_ids")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


def pack(sequences: Tokens, labels: Tokens) -> Packed:
    """One row of all sequences. labels: per token of each sequence its id where it is learned, else -100.

    The token before a learned one predicts it; the label of a first token has no token before it and does not count.
    """
    order, tokens, shared = _sort(sequences)
    paths = _paths(tokens, shared)
    places: list[Ints] = [paths[0]] * len(order)
    for position, path in zip(order, paths, strict=True):
        places[position] = path
    new = [one[count:] for one, count in zip(tokens, shared, strict=True)]
    depths = [np.arange(count, len(one)) for one, count in zip(tokens, shared, strict=True)]
    return Packed(
        torch.from_numpy(np.concatenate(new))[None],
        torch.from_numpy(np.concatenate(depths))[None],
        torch.from_numpy(_mask(paths, shared))[None, None],
        tuple(torch.from_numpy(path) for path in places),
        *_targets(places, labels),
    )


def plan(sequences: Tokens, max_tokens: int) -> list[list[int]]:
    """Positions in groups whose packed rows have at most `max_tokens` (one sequence always fits alone).

    As few groups as neighbours in lexicographic order allow, and of these groups the largest as small as can be: the
    cost of attention grows with the square of a row.
    """
    order, tokens, shared = _sort(sequences)
    lengths = [len(one) for one in tokens]
    fewest = len(_fill(lengths, shared, max_tokens))
    low, high = 1, max_tokens
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_fill(lengths, shared, middle)) <= fewest else (middle + 1, high)
    return [[order[i] for i in group] for group in _fill(lengths, shared, low)]


def deal(sequences: Tokens, parts: int) -> list[list[int]]:
    """Positions in `parts` lots of similar work, some perhaps empty; sequences with a common prefix lie together."""
    order, tokens, shared = _sort(sequences)
    new = [len(one) - count for one, count in zip(tokens, shared, strict=True)]
    total = max(1, sum(new))
    lots: list[list[int]] = [[] for _ in range(parts)]
    for position, count, done in zip(order, new, accumulate(new), strict=True):
        middle = (2 * done - count) / (2 * total)
        lots[min(int(middle * parts), parts - 1)].append(position)
    return lots


def unpack(hidden_TD: torch.Tensor, packed: Packed) -> list[torch.Tensor]:
    """For each sequence, in the order given to `pack`, its rows of `hidden_TD`: L x D."""
    return [hidden_TD[place] for place in packed.places]


def hidden_states(model: nn.Module, packed: Packed) -> torch.Tensor:
    """What the head of a causal model would see, for each of the T places: T x D."""
    dtype = inner(model).dtype
    # Added to the scores of attention: understood by `sdpa` and by `eager`, which would add True as 1.
    mask_11TT = torch.zeros(packed.mask.shape, dtype=dtype, device=packed.mask.device)
    mask_11TT.masked_fill_(~packed.mask, torch.finfo(dtype).min)
    inputs = {"input_ids": packed.ids, "position_ids": packed.positions, "attention_mask": mask_11TT}
    return run_body(model, inputs)[0]


def run_body(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the head of a causal model would see, B x T x D, from any inputs its forward takes."""
    hidden_BTD, _ = run_trimmed(model, {**inputs, "use_cache": False}, lambda hidden_BTD: hidden_BTD[:, :1])
    return hidden_BTD.to(inner(model).dtype)  # autocast may end in another type than the head's


def inner(model: nn.Module) -> Any:
    """The transformers model inside whatever is wrapped around it."""
    found: Any = model.module if isinstance(model, DistributedDataParallel) else model
    return found.get_base_model() if hasattr(found, "get_base_model") else found


def head(model: nn.Module) -> nn.Module:
    """The output embedding: N x D -> N x V."""
    module: nn.Module | None = inner(model).get_output_embeddings()
    if module is None:
        raise ModelError(
            f"{type(inner(model)).__name__} has no output embedding", expected="a causal language model with a head"
        )
    return module


def run_trimmed(
    model: nn.Module, inputs: Mapping[str, Any], select: Callable[[torch.Tensor], torch.Tensor]
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


def disagrees(model: nn.Module, sequences: Tokens, labels: Tokens, tolerance: float = 1e-4) -> str | None:
    """Try a few of the sequences both ways; None where packing gives the model's own logits, else why it does not.

    sequences: all that will be packed, for the one that is learned furthest from its start decides about sliding
    windows. tolerance: of the largest difference of two logits, relative to the largest logit.
    """
    window, reach = _window(model), max(map(_reach, labels))
    if window and reach > window:
        return f"its layers look back {window} tokens, and a sequence has {reach}"
    try:
        with evaluating(model), torch.no_grad():
            difference = _difference(model, *_probes(sequences, labels))
    except Exception as error:  # any model may be tried here; whatever it raises is the answer
        return f"it cannot run a packed row ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]})"
    if difference <= tolerance:  # not so for NaN
        return None
    return f"its logits differ by {difference:.1e} of the largest (at most {tolerance:.0e} is allowed)"


def _sort(sequences: Tokens) -> tuple[list[int], list[Ints], list[int]]:
    """Lexicographic order, the sequences in that order, and how many tokens each shares with the one before it."""
    lists = [list(one) for one in sequences]
    order = sorted(range(len(lists)), key=lists.__getitem__)
    tokens = [np.asarray(lists[i], np.int64) for i in order]
    return order, tokens, [0, *(_common(a, b) for a, b in pairwise(tokens))][: len(order)]


def _common(a: Ints, b: Ints) -> int:
    """Length of the longest common prefix."""
    shorter = min(len(a), len(b))
    (differ,) = np.nonzero(a[:shorter] != b[:shorter])
    return int(differ[0]) if len(differ) else shorter


def _paths(tokens: Sequence[Ints], shared: Sequence[int]) -> list[Ints]:
    """Sorted sequences -> the places of their tokens in the row."""
    paths: list[Ints] = []
    end = 0
    for one, count in zip(tokens, shared, strict=True):
        start, end = end, end + len(one) - count
        before = paths[-1][:count] if paths else np.empty(0, np.int64)
        paths.append(np.concatenate([before, np.arange(start, end)]))
    return paths


def _mask(paths: Sequence[Ints], shared: Sequence[int]) -> npt.NDArray[np.bool_]:
    """T x T, True where the row's token attends to the column's."""
    total = sum(len(path) - count for path, count in zip(paths, shared, strict=True))
    mask_TT = np.zeros((total, total), bool)
    end = 0
    for path, count in zip(paths, shared, strict=True):
        start, end = end, end + len(path) - count
        mask_TT[start:end, path[:count]] = True
        mask_TT[start:end, start:end] = np.tri(end - start, dtype=bool)
    return mask_TT


def _targets(places: Sequence[Ints], labels: Tokens) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unique places, the index of each prediction into them, and the id it should give; by place."""
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
    found = (unique_U, index_P[order_P].astype(np.int64), np.concatenate(ids)[order_P])
    return torch.from_numpy(found[0]), torch.from_numpy(found[1]), torch.from_numpy(found[2])


def _fill(lengths: Sequence[int], shared: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Neighbours in groups, each as full as `max_tokens` allows: the fewest groups there can be."""
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


def _window(model: nn.Module) -> int | None:
    """How many tokens the model's layers look back, where its configuration has a limit."""
    config = inner(model).config.get_text_config()
    limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((limit for limit in limits if limit), default=None)


def _reach(labels: Sequence[int]) -> int:
    """Tokens up to and with the last that predicts something."""
    return max((i for i, label in enumerate(labels) if label != IGNORE), default=0)


def _probes(sequences: Tokens, labels: Tokens) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """A few sequences, the one learned furthest from its start, and a branch off its middle: the tree must fork."""
    far = max(range(len(sequences)), key=lambda i: (_reach(labels[i]), len(sequences[i])))
    chosen = sorted({*range(min(3, len(sequences))), far})
    half = len(sequences[far]) // 2
    branch = [*sequences[far][:half], *reversed(sequences[far][half:])]
    learned = [IGNORE] * half + branch[half:]
    return [*(sequences[i] for i in chosen), branch], [*(labels[i] for i in chosen), learned]


def _difference(model: nn.Module, sequences: Tokens, labels: Tokens) -> float:
    """The largest difference of two logits relative to the largest logit: packed against one by one."""
    packed = pack(sequences, labels).to(inner(model).device)
    output_head = head(model)
    worst, scale = torch.zeros(()), torch.zeros(())
    for ids, row, hidden_LD in zip(sequences, labels, unpack(hidden_states(model, packed), packed), strict=True):
        at = [i - 1 for i, label in enumerate(row) if i and label != IGNORE][-64:]  # the last have the most behind them
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
    """Without dropout; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
