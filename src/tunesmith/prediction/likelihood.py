"""How well a generator predicts given answers: the loss of their tokens, conversation by conversation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tunesmith import processes
from tunesmith.console import track, warn
from tunesmith.data import batches, truncation
from tunesmith.data.encode import IGNORE, EncodedText
from tunesmith.data.prompts import ChatEncoder, Conversation
from tunesmith.models import packing

Loss = tuple[float, int]
"""Cross-entropy in nats, summed over the answers' tokens, and their number."""
CHUNK = 256
"""Tokens that the head processes at once: a product of many rows is several times as fast as many of a few."""


def losses(
    model: nn.Module,
    chat_encoder: ChatEncoder,
    max_length: int,
    names: Sequence[str],
    conversations: Sequence[Conversation],
    packs_up_to: int = 0,
) -> list[Loss]:
    """Return one loss per conversation, in the order given; (0, 0) where an answer alone is too long, with a warning.

    max_length: most tokens of a conversation. packs_up_to: see `Generator.packs_up_to`.
    """
    limits = [max_length] * len(names)
    numbers = [str(number) for number in range(len(names))]
    rows, changes = truncation.encode(numbers, conversations, chat_encoder, limits, "truncate")
    for change in changes:
        warn(f"loss: {change.count:,} of {len(names):,} rows {change.what} ({names[int(change.where[0])]} ...)")
    summed: list[Loss] = [(0.0, 0)] * len(names)
    if not rows:
        return summed
    model.eval()
    ids, labels = [row.ids for row in rows], [row.labels for row in rows]
    with torch.inference_mode():
        if packing.reach(labels) > packs_up_to and packing.set_up(model, ids, labels):
            plan, measure = [[i] for i in range(len(rows))], _measure_alone
        else:
            plan = packing.plan(ids, batches.token_budget("auto", next(model.parameters()).device))
            measure = _measure_packed

        def compute(groups: Sequence[Sequence[int]]) -> list[list[Loss]]:
            return [measure(model, [rows[i] for i in group]) for group in track(groups, "loss")]

        for group, of_group in zip(plan, processes.share(plan, compute), strict=True):
            for i, (loss, learned) in zip(group, of_group, strict=True):  # a raw text may be several rows
                earlier = summed[int(rows[i].id)]
                summed[int(rows[i].id)] = earlier[0] + loss, earlier[1] + learned
    return summed


def _measure_alone(model: nn.Module, rows: Sequence[EncodedText]) -> list[Loss]:
    """Return the loss of one row, for models that cannot read packed rows."""
    (row,) = rows
    device = next(model.parameters()).device
    places, targets = _targets(row.labels, device)
    logits_1TV = model(input_ids=torch.tensor([row.ids], device=device)).logits
    return [_summed(logits_1TV[0, places], targets)]


def _measure_packed(model: nn.Module, rows: Sequence[EncodedText]) -> list[Loss]:
    """Return the losses of rows that are packed in one."""
    device = next(model.parameters()).device
    packed = packing.pack([row.ids for row in rows], [row.labels for row in rows]).to(device)
    hidden = packing.unpack(packing.hidden_states(model, packed), packed)
    learned = [_targets(row.labels, device) for row in rows]
    hidden_ND = torch.cat([states_LD[at] for states_LD, (at, _) in zip(hidden, learned, strict=True)])
    each_N = _cross_entropies(packing.head(model), hidden_ND, torch.cat([targets for _, targets in learned]))
    parts = torch.split(each_N, [len(at) for at, _ in learned])
    return [(float(part.sum()), len(part)) for part in parts]


def _targets(labels: Sequence[int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places that predict a learned token, and these tokens."""
    learned = [i for i, label in enumerate(labels) if i and label != IGNORE]
    places = torch.tensor([i - 1 for i in learned], dtype=torch.long, device=device)
    return places, torch.tensor([labels[i] for i in learned], dtype=torch.long, device=device)


def _cross_entropies(head: nn.Module, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Return the loss of each of N tokens, with the logits of CHUNK of them in memory at once."""
    parts = zip(torch.split(hidden_ND, CHUNK), torch.split(targets_N, CHUNK), strict=True)
    return torch.cat([nn.functional.cross_entropy(head(h).float(), t, reduction="none") for h, t in parts])


def _summed(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> Loss:
    return float(nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="sum")), len(targets_N)
