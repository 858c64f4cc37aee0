"""Exact log-probabilities of several answers to a prompt, with every shared part computed once.

The answers form a prefix tree. A row of a batch is a prompt followed by the tree's nodes, each of which attends to the
prompt and its ancestors; the common beginning of all prompts (an instruction, shots) is computed once and cached. As in
models/packing.py, every hidden state equals that of the sequence run alone. Here a row holds one example: attention
between the examples of a row would be computed and masked.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tunesmith import errors, processes
from tunesmith.console import track
from tunesmith.data import batches
from tunesmith.data.prompts import Ids
from tunesmith.models import onednn_linear, packing

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MAX_LOGITS = 2**26
"""Logits in memory at once."""
MAX_CACHED = 2**15
"""Tokens whose keys and values are in memory at once: every row of a batch has a copy of those of the beginning."""
CPU_TOKENS = 512
"""Tokens in memory at once on a CPU: 256 and 1,024 take a tenth longer."""
TOLERANCE = 1e-4
"""Largest difference of two log-probabilities, relative to the largest of them."""


@dataclass(frozen=True)
class Tree:
    """K answers as a prefix tree of E edges, each a token to predict at a place: 0 is the prompt's end, n node n - 1.

    The N nodes are the tokens that the model reads; the last token of an answer is only predicted.
    """

    answers: tuple[tuple[int, ...], ...]
    tokens: Ints
    """N."""
    parents: Ints
    """N: the place that predicts each node."""
    edge_places: Ints
    """E."""
    edge_tokens: Ints
    """E."""
    paths: tuple[Ints, ...]
    """K: the edges of each answer, in order."""

    @classmethod
    def of(cls, answers: Sequence[Ids]) -> Tree:
        """Return the tree of answers, none of which is empty or the beginning of another."""
        edges: dict[tuple[int, int], int] = {}
        nodes: dict[int, int] = {}
        paths = []
        for ids in answers:
            path, place = [], 0
            for token in ids:
                path.append(edges.setdefault((place, token), len(edges)))
                if len(path) < len(ids):
                    place = nodes.setdefault(path[-1], len(nodes)) + 1
            paths.append(np.array(path))
        places, tokens = np.array(list(edges), np.int64).T
        at = np.array(list(nodes), np.int64)
        return cls(tuple(map(tuple, answers)), tokens[at], places[at], places, tokens, tuple(paths))

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return N x N: True where a node (row) attends to a node (column), itself or an ancestor."""
        mask_NN = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):  # parents come before their children
            if parent:
                mask_NN[node] |= mask_NN[parent - 1]
        return mask_NN

    def total(self, edges_BE: Floats) -> Floats:
        """Return the log-probability of each answer, B x K."""
        return np.stack([edges_BE[:, path].sum(axis=1) for path in self.paths], axis=1)

    def constrained(self, edges_BE: Floats) -> Floats:
        """Return the edges' log-probabilities if only these answers are possible: they sum to 1 at each place."""
        local_BE = edges_BE.copy()
        for place in np.unique(self.edge_places):
            here = self.edge_places == place
            local_BE[:, here] -= np.logaddexp.reduce(edges_BE[:, here], axis=1, keepdims=True)
        return local_BE

    def greedy(self, edges_BE: Floats) -> list[int]:
        """Return the index of the answer that greedy generation would give for each row of edges."""
        chosen = []
        for edges_E in edges_BE:
            left = list(range(len(self.paths)))
            step = 0
            while len(left) > 1:
                best = max((self.paths[k][step] for k in left), key=lambda edge: edges_E[edge])
                left = [k for k in left if self.paths[k][step] == best]
                step += 1
            chosen.append(left[0])
        return chosen


@dataclass(frozen=True)
class Part:
    """Nodes that are read together, with their ancestors, and the edges that they predict."""

    nodes: Ints
    edges: Ints
    places: Ints
    """The place of each edge in a row: 0 for the prompt's end, n for the n-th of `nodes`."""


@dataclass(frozen=True)
class Prefix:
    """Tokens that prompts begin with, and their keys and values."""

    ids: tuple[int, ...] = ()
    cache: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, model: nn.Module, ids: Sequence[int]) -> Prefix:
        """Compute the keys and values of tokens that prompts begin with."""
        model.eval()
        with torch.inference_mode(), onednn_linear.enabled():
            return cls().extended(model, ids)

    def extended(self, model: nn.Module, ids: Sequence[int]) -> Prefix:
        """Return the prefix of `ids`, which begin with those of this one; only the others are computed."""
        if len(ids) == len(self.ids):
            return self
        inputs = {"input_ids": torch.tensor([ids[len(self.ids) :]], device=_device(model)), "use_cache": True}
        if self.cache is not None:
            inputs["past_key_values"] = copy.deepcopy(self.cache)  # the model adds to it
        output = packing.run_trimmed(model, inputs, lambda hidden_1TD: hidden_1TD[:, :1])[1]
        return Prefix(tuple(ids), output.past_key_values)

    def starts(self, ids: Ids) -> bool:
        """Return whether a prompt begins with these tokens, and goes on."""
        return len(ids) > len(self.ids) and tuple(ids[: len(self.ids)]) == self.ids


def score(
    model: nn.Module,
    prompts: Sequence[Ids],
    tree: Tree,
    max_tokens: int | str,
    title: str,
    opening: Prefix = Prefix(),
) -> Floats:
    """Return the log-probabilities of a tree's edges after each prompt, B x E.

    max_tokens: in memory at once, or `auto`. opening: what most prompts begin with, computed before.
    """
    model.eval()
    logs_BE = np.zeros((len(prompts), len(tree.edge_tokens)))
    begun = [i for i, ids in enumerate(prompts) if opening.starts(ids)]
    others = [i for i, ids in enumerate(prompts) if not opening.starts(ids)]
    with torch.inference_mode(), onednn_linear.enabled():
        for places, known in ((begun, opening), (others, Prefix())):
            if places:
                rows = [prompts[i] for i in places]
                logs_BE[places] = _score(model, rows, tree, _budget(max_tokens, _device(model)), title, known)
    return logs_BE


def _score(model: nn.Module, prompts: Sequence[Ids], tree: Tree, budget: int, title: str, opening: Prefix) -> Floats:
    """Return the same of prompts that all begin with `opening`; what more they have in common is computed once."""
    vocabulary: int = model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    shared: Sequence[int] = opening.ids
    if len(prompts) > 1:
        first, last = min(prompts), max(prompts)  # all others lie between these two
        common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        shared = first[: min(common, *(len(ids) - 1 for ids in prompts))]  # at least one token of each prompt remains
    prefix, size = opening.extended(model, shared), len(shared)
    logs_BE = np.zeros((len(prompts), len(tree.edge_tokens)))
    for part in _parts(tree, budget):
        layout = _PromptRows(tree, part, prefix)
        lengths = [len(ids) - size + len(part.nodes) for ids in prompts]
        longest = max(lengths)
        max_rows = max(1, min(MAX_LOGITS // (vocabulary * (len(part.nodes) + 1)), MAX_CACHED // (size + longest)))
        plan = batches.plan(lengths, min(budget, longest * max_rows))

        def compute(groups: Sequence[Sequence[int]], layout: _PromptRows = layout) -> list[Floats]:
            return [layout.run(model, [prompts[i][size:] for i in group]) for group in track(groups, title)]

        for group, edges_GE in zip(plan, processes.share(plan, compute), strict=True):
            logs_BE[np.array(group)[:, None], part.edges] = edges_GE
    return logs_BE


def score_padded(model: nn.Module, prompts: Sequence[Ids], tree: Tree, max_tokens: int | str, title: str) -> Floats:
    """Return the same from one padded row per prompt and answer, for models that cannot read a tree."""
    model.eval()
    device = _device(model)
    logs_BE = np.zeros((len(prompts), len(tree.edge_tokens)))
    rows = [(b, k) for b in range(len(prompts)) for k in range(len(tree.answers))]
    lengths = [len(prompts[b]) + len(tree.answers[k]) - 1 for b, k in rows]
    plan = batches.plan(lengths, _budget(max_tokens, device))

    def compute(groups: Sequence[Sequence[int]]) -> list[list[Floats]]:
        chosen = [[(prompts[b], tree.answers[k]) for b, k in (rows[i] for i in group)] for group in groups]
        return [_answer_logs(model, pairs) for pairs in track(chosen, title)]

    with torch.inference_mode(), onednn_linear.enabled():
        for group, logs in zip(plan, processes.share(plan, compute), strict=True):
            for i, logs_L in zip(group, logs, strict=True):
                b, k = rows[i]
                logs_BE[b, tree.paths[k]] = logs_L
    return logs_BE


def _answer_logs(model: nn.Module, pairs: Sequence[tuple[Ids, Sequence[int]]]) -> list[Floats]:
    """Return the log-probability of each token of each answer, of prompts and answers in padded rows."""
    ids = [[*prompt, *answer[:-1]] for prompt, answer in pairs]
    width = max(map(len, ids))
    inputs = {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
    }
    inputs = {name: tensor.to(_device(model)) for name, tensor in inputs.items()}
    logs = []
    for (prompt, answer), logits_TV in zip(pairs, model(**inputs, use_cache=False).logits, strict=True):
        at = torch.arange(len(answer)) + len(prompt) - 1
        logs_LV = logits_TV[at].float().log_softmax(-1)
        logs.append(logs_LV[torch.arange(len(at)), torch.tensor(answer)].double().cpu().numpy())
    return logs


def disagrees(
    model: nn.Module, prompts: Sequence[Ids], answers: Sequence[Ids], opening: Sequence[int] = ()
) -> str | None:
    """Run both ways; return None if a tree gives the model's own log-probabilities, else the reason.

    The longest prompt decides about sliding windows. opening: what most prompts begin with.
    """
    tree = Tree.of(answers)
    try:
        with processes.sharing(False):  # where the model fails, every process has to see it
            by_tree = score(model, prompts, tree, "auto", "check", Prefix.of(model, opening))
            by_row = score_padded(model, prompts, tree, "auto", "check")
    except Exception as error:  # models may raise anything here; it is the reason
        return f"it cannot read a tree ({errors.summary(error)})"
    difference = float(np.abs(by_tree - by_row).max() / np.abs(by_row).max())
    if difference <= TOLERANCE:  # not so for NaN
        return None
    return f"log-probabilities differ by {difference:.1e} of the largest (at most {TOLERANCE:.0e} is allowed)"


@dataclass(frozen=True)
class _PromptRows:
    """Lays out a batch: rows of a prompt after the shared beginning, padding, and the nodes of a part of the tree."""

    tree: Tree
    part: Part
    prefix: Prefix
    """The shared beginning."""

    def run(self, model: nn.Module, prompts: Sequence[Ids]) -> Floats:
        """Return the log-probabilities of the part's edges, B x E."""
        device, nodes = _device(model), self.part.nodes
        width = max(map(len, prompts))
        lengths_B = torch.tensor([len(ids) for ids in prompts])
        tokens = self.tree.tokens[nodes].tolist()
        # A node's position is its depth in the tree, whose root is the whole prompt.
        depth_N = torch.from_numpy(self.tree.mask()[nodes].sum(1)) - 1
        prompt_BT = torch.arange(width).expand(len(prompts), -1)
        inputs = {
            "input_ids": torch.tensor([ids + [0] * (width - len(ids)) + tokens for ids in prompts]),
            "position_ids": torch.cat([prompt_BT, lengths_B[:, None] + depth_N], dim=1) + len(self.prefix.ids),
            "attention_mask": self._mask(lengths_B, width, next(model.parameters()).dtype),
        }
        more: dict[str, object] = {"use_cache": False}
        if self.prefix.ids:
            cache = copy.deepcopy(self.prefix.cache)  # the model adds to it
            cache.batch_repeat_interleave(len(prompts))
            more = {"past_key_values": cache, "use_cache": True}
        places_BU = torch.cat(
            [lengths_B[:, None] - 1, torch.arange(len(nodes)).expand(len(prompts), -1) + width], dim=1
        )
        rows_B1, places_BU = torch.arange(len(prompts), device=device)[:, None], places_BU.to(device)
        _, output = packing.run_trimmed(
            model,
            {name: tensor.to(device) for name, tensor in inputs.items()} | more,
            lambda hidden_BTD: hidden_BTD[rows_B1, places_BU],
        )
        logits_BUV: torch.Tensor = output.logits
        logits_BUV = logits_BUV.to(torch.promote_types(logits_BUV.dtype, torch.float32))
        places, edges = torch.from_numpy(self.part.places), torch.from_numpy(self.tree.edge_tokens[self.part.edges])
        logs_BE: Floats = (logits_BUV[:, places, edges] - logits_BUV.logsumexp(-1)[:, places]).double().cpu().numpy()
        return logs_BE

    def _mask(self, lengths_B: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
        """Return the bias on attention scores, B x 1 x T x S: 0 where a token (row) attends to a token (column)."""
        nodes = self.part.nodes
        shared = len(self.prefix.ids)
        end = shared + width
        mask = torch.zeros(len(lengths_B), width + len(nodes), end + len(nodes), dtype=torch.bool)
        mask[:, :, :shared] = True
        mask[:, :width, shared:end] = torch.ones(width, width, dtype=torch.bool).tril()
        mask[:, width:, shared:end] = (torch.arange(width) < lengths_B[:, None])[:, None]
        mask[:, width:, end:] = torch.from_numpy(self.tree.mask()[np.ix_(nodes, nodes)])
        return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)[:, None]


def _budget(setting: int | str, device: torch.device) -> int:
    """Return how many tokens to hold in memory at once; `auto` on a CPU is smaller than in training, see docs."""
    return CPU_TOKENS if setting == "auto" and device.type == "cpu" else batches.token_budget(setting, device)


def _parts(tree: Tree, max_nodes: int) -> list[Part]:
    """Return the whole tree, or its nodes in groups if a row cannot hold them all."""
    mask_NN = tree.mask()
    parts = []
    for start in range(0, max(1, len(tree.tokens)), max_nodes):
        group = np.arange(start, min(start + max_nodes, len(tree.tokens)))
        nodes = np.flatnonzero(mask_NN[group].any(axis=0)) if len(group) else group
        edges = np.flatnonzero(np.isin(tree.edge_places, group + 1) | ((tree.edge_places == 0) & (start == 0)))
        places = tree.edge_places[edges]
        parts.append(Part(nodes, edges, np.where(places == 0, 0, np.searchsorted(nodes, places - 1) + 1)))
    return parts


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
