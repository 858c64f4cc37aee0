"""How likely a causal language model finds each of several answers, exactly and with all that is shared computed once.

The answers form a prefix tree. A row of a batch is a prompt followed by the tree's nodes, each of which attends to the
prompt and its ancestors; the beginning that all prompts have in common (an instruction) is computed once and kept. As
in models/packing.py every hidden state equals that of the sequence run alone; here rows hold one example each, since in
a row of many, attention between examples is computed only to be thrown away.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tunesmith import errors
from tunesmith.console import track
from tunesmith.data import batches
from tunesmith.data.prompts import Ids
from tunesmith.models import onednn_linear, packing

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
LOGITS = 2**26
"""Most logits in memory at once."""
ROW = 512
"""Tokens read at once on a CPU: 256 and 1,024 take a tenth longer."""
TOLERANCE = 1e-4
"""Of the largest difference of two log-probabilities, relative to the largest of them."""


@dataclass(frozen=True)
class Tree:
    """K answers as a prefix tree of E edges, each a token to predict at a place: 0 is the prompt's end, n node n - 1.

    The N nodes are what must be read: a token that nothing follows is only predicted.
    """

    answers: tuple[tuple[int, ...], ...]
    tokens: Ints
    """N."""
    parents: Ints
    """N: the place before each node."""
    edge_places: Ints
    """E."""
    edge_tokens: Ints
    """E."""
    paths: tuple[Ints, ...]
    """K: the edges of each answer, in order."""

    @classmethod
    def of(cls, answers: Sequence[Ids]) -> Tree:
        """Of answers with an end token, none of which is empty or the beginning of another."""
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

    def sees(self) -> npt.NDArray[np.bool_]:
        """N x N: the node's (row's) ancestors and itself."""
        seen_NN = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):  # parents stand before their children
            if parent:
                seen_NN[node] |= seen_NN[parent - 1]
        return seen_NN

    def total(self, edges_BE: Floats) -> Floats:
        """Log-probability of each answer, B x K."""
        return np.stack([edges_BE[:, path].sum(axis=1) for path in self.paths], axis=1)

    def confined(self, edges_BE: Floats) -> Floats:
        """The same, but where only these answers can be given: at each place its edges share all probability."""
        local_BE = edges_BE.copy()
        for place in np.unique(self.edge_places):
            here = self.edge_places == place
            local_BE[:, here] -= np.logaddexp.reduce(edges_BE[:, here], axis=1, keepdims=True)
        return local_BE

    def greedy(self, edges_BE: Floats) -> list[int]:
        """The answer that the likeliest edge at every place leads to: what greedy generation among them would give."""
        found = []
        for edges_E in edges_BE:
            left = list(range(len(self.paths)))
            step = 0
            while len(left) > 1:
                best = max((self.paths[k][step] for k in left), key=lambda edge: edges_E[edge])
                left = [k for k in left if self.paths[k][step] == best]
                step += 1
            found.append(left[0])
        return found


@dataclass(frozen=True)
class Part:
    """Nodes that are read together, with their ancestors, and the edges at them."""

    nodes: Ints
    edges: Ints
    places: Ints
    """Of `edges`, in a row: 0 for the prompt's end, n for the n-th of `nodes`."""


def score(model: nn.Module, prompts: Sequence[Ids], tree: Tree, max_tokens: int | str, title: str) -> Floats:
    """Log-probabilities of a tree's edges behind each prompt, B x E. max_tokens: in memory at once, or `auto`."""
    model.eval()
    budget = _budget(max_tokens, _device(model))
    shared = _shared(prompts)
    logs_BE = np.zeros((len(prompts), len(tree.edge_tokens)))
    with torch.inference_mode(), onednn_linear.enabled():
        kept = None
        if shared:
            inputs = {"input_ids": torch.tensor([shared], device=_device(model)), "use_cache": True}
            kept = packing.run_trimmed(model, inputs, lambda hidden_1TD: hidden_1TD[:, :1])[1].past_key_values
        for part in _parts(tree, budget):
            row = _Rows(tree, part, kept, len(shared))
            lengths = [len(ids) - len(shared) + len(part.nodes) for ids in prompts]
            groups = batches.plan(lengths, min(budget, _row_limit(model, part, max(lengths))))
            for group in track(groups, title):
                logs_BE[np.array(group)[:, None], part.edges] = row.run(
                    model, [prompts[i][len(shared) :] for i in group]
                )
    return logs_BE


def score_padded(model: nn.Module, prompts: Sequence[Ids], tree: Tree, max_tokens: int | str, title: str) -> Floats:
    """The same by a row of its own for every prompt and answer: for models that cannot read a tree."""
    model.eval()
    logs_BE = np.zeros((len(prompts), len(tree.edge_tokens)))
    rows = [(b, k) for b in range(len(prompts)) for k in range(len(tree.answers))]
    lengths = [len(prompts[b]) + len(tree.answers[k]) - 1 for b, k in rows]
    budget = _budget(max_tokens, _device(model))
    with torch.inference_mode(), onednn_linear.enabled():
        for group in track(batches.plan(lengths, budget), title):
            ids = [[*prompts[b], *tree.answers[k][:-1]] for b, k in (rows[i] for i in group)]
            logits_BTV = model(**_padded(ids, _device(model)), use_cache=False).logits
            for i, logits_TV in zip(group, logits_BTV, strict=True):
                b, k = rows[i]
                at = torch.arange(len(tree.answers[k])) + len(prompts[b]) - 1
                logs_LV = logits_TV[at].float().log_softmax(-1)
                chosen = logs_LV[torch.arange(len(at)), torch.tensor(tree.answers[k])]
                logs_BE[b, tree.paths[k]] = chosen.double().cpu().numpy()
    return logs_BE


def disagrees(model: nn.Module, prompts: Sequence[Ids], answers: Sequence[Ids]) -> str | None:
    """Try both ways; None where a tree gives the model's own log-probabilities, else why it does not.

    The longest prompt decides about sliding windows.
    """
    tree = Tree.of(answers)
    try:
        mine, own = (f(model, prompts, tree, "auto", "check") for f in (score, score_padded))
    except Exception as error:  # any model may be tried here; whatever it raises is the answer
        return f"it cannot read a tree ({errors.summary(error)})"
    difference = float(np.abs(mine - own).max() / np.abs(own).max())
    if difference <= TOLERANCE:  # not so for NaN
        return None
    return f"log-probabilities differ by {difference:.1e} of the largest (at most {TOLERANCE:.0e} is allowed)"


@dataclass(frozen=True)
class _Rows:
    """Lays prompts out as rows: what follows the shared beginning, padding, and the nodes of a part of the tree."""

    tree: Tree
    part: Part
    kept: Any | None
    """What the model keeps of the shared beginning."""
    shared: int
    """Its tokens."""

    def run(self, model: nn.Module, prompts: Sequence[Ids]) -> Floats:
        """Log-probabilities of the part's edges, B x E."""
        device = _device(model)
        width = max(map(len, prompts))
        lengths_B = torch.tensor([len(ids) for ids in prompts])
        inputs = {
            "input_ids": torch.tensor([ids + [0] * (width - len(ids)) + self._tokens for ids in prompts]),
            "position_ids": self._positions(lengths_B, width),
            "attention_mask": self._mask(lengths_B, width, next(model.parameters()).dtype),
        }
        more = {"past_key_values": self._keep(len(prompts)), "use_cache": True} if self.kept else {"use_cache": False}
        nodes = torch.arange(len(self.part.nodes)).expand(len(prompts), -1) + width
        places_BU = torch.cat([lengths_B[:, None] - 1, nodes], dim=1)
        rows_B1 = torch.arange(len(prompts), device=device)[:, None]
        places_BU = places_BU.to(device)
        _, output = packing.run_trimmed(
            model,
            {name: tensor.to(device) for name, tensor in inputs.items()} | more,
            lambda hidden_BTD: hidden_BTD[rows_B1, places_BU],
        )
        logits_BUV: torch.Tensor = output.logits
        logits_BUV = logits_BUV.to(torch.promote_types(logits_BUV.dtype, torch.float32))
        places, tokens = torch.from_numpy(self.part.places), torch.from_numpy(self.tree.edge_tokens[self.part.edges])
        logs_BE: Floats = (logits_BUV[:, places, tokens] - logits_BUV.logsumexp(-1)[:, places]).double().cpu().numpy()
        return logs_BE

    @property
    def _tokens(self) -> list[int]:
        return [int(token) for token in self.tree.tokens[self.part.nodes]]

    def _keep(self, rows: int) -> Any:
        """A copy, for the model adds to it."""
        kept = copy.deepcopy(self.kept)
        kept.batch_repeat_interleave(rows)  # type: ignore[union-attr]
        return kept

    def _positions(self, lengths_B: torch.Tensor, width: int) -> torch.Tensor:
        """Depth in the tree, which the whole prompt is the root of."""
        depth_N = torch.from_numpy(self.tree.sees()[self.part.nodes].sum(1)) - 1
        prompt_BT = torch.arange(width).expand(len(lengths_B), -1)
        return torch.cat([prompt_BT, lengths_B[:, None] + depth_N], dim=1) + self.shared

    def _mask(self, lengths_B: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
        """Added to the scores of attention: 0 where a token (row) may look, B x 1 x T x S."""
        nodes = self.part.nodes
        ends = self.shared + width
        sees = torch.zeros(len(lengths_B), width + len(nodes), ends + len(nodes), dtype=torch.bool)
        sees[:, :, : self.shared] = True
        sees[:, :width, self.shared : ends] = torch.ones(width, width, dtype=torch.bool).tril()
        sees[:, width:, self.shared : ends] = (torch.arange(width) < lengths_B[:, None])[:, None]
        sees[:, width:, ends:] = torch.from_numpy(self.tree.sees()[np.ix_(nodes, nodes)])
        mask = torch.zeros(sees.shape, dtype=dtype)
        return mask.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


def _budget(setting: int | str, device: torch.device) -> int:
    """Tokens in memory at once. `auto`: smaller than in training where the cache is what counts, see benchmarks."""
    return ROW if setting == "auto" and device.type == "cpu" else batches.token_budget(setting, device)


def _shared(prompts: Sequence[Ids]) -> Ids:
    """What all prompts begin with; of each prompt something is left, and one prompt shares nothing."""
    if len(prompts) < 2:
        return []
    first, last = min(prompts), max(prompts)  # between these two lie all others
    count = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: min(count, *(len(ids) - 1 for ids in prompts))]


def _parts(tree: Tree, max_nodes: int) -> list[Part]:
    """The whole tree, or, where it does not fit into a row, its nodes in groups."""
    sees_NN = tree.sees()
    parts = []
    for start in range(0, max(1, len(tree.tokens)), max_nodes):
        group = np.arange(start, min(start + max_nodes, len(tree.tokens)))
        nodes = np.flatnonzero(sees_NN[group].any(axis=0)) if len(group) else group
        mine = np.isin(tree.edge_places, group + 1) | ((tree.edge_places == 0) & (start == 0))
        edges = np.flatnonzero(mine)
        places = tree.edge_places[edges]
        parts.append(Part(nodes, edges, np.where(places == 0, 0, np.searchsorted(nodes, places - 1) + 1)))
    return parts


def _row_limit(model: nn.Module, part: Part, longest: int) -> int:
    """Tokens of as many rows as have LOGITS logits at most."""
    vocabulary: int = model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
    return longest * max(1, LOGITS // (vocabulary * (len(part.nodes) + 1)))


def _padded(rows: Sequence[Ids], device: torch.device) -> dict[str, torch.Tensor]:
    """Padded on the right, where no token that counts looks."""
    width = max(map(len, rows))
    ids_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids in rows])
    mask_BT = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows])
    return {"input_ids": ids_BT.to(device), "attention_mask": mask_BT.to(device)}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
