"""How much of its reference a response contains: ROUGE, BLEU, chrF, token F1. All use of rouge-score and sacrebleu.

Each figure is a mean over rows, or made of whole numbers that are summed over rows: so thousands of resamples cost a
matrix product, and the figures themselves are always the libraries' own. Shapes: N rows, B resamples, C sums.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from tunesmith import processes
from tunesmith.evaluation.intervals import Floats, Index, sums

ROUGE = ("rouge1", "rouge2", "rougeL")
MEANS = (*ROUGE, "token_f1")
"""Figures that are means over rows, 0 to 1."""
SUMMED = {"bleu": slice(0, 10), "chrf": slice(10, 28), "length_ratio": slice(28, 30)}
"""Figures made of sums over rows, and which of a row's whole numbers belong to them."""
FIGURES = (*ROUGE, "bleu", "chrf", "token_f1", "length_ratio")
"""In the order of a report. BLEU and chrF go from 0 to 100, as sacrebleu has them."""
REMEMBERED = 1 << 15
"""Pairs of texts whose numbers are kept: scoring, testing and reporting ask for the same ones."""


@dataclass(frozen=True, slots=True)
class OverlapTable:
    """Responses against their references."""

    means: Floats
    """N x M: those of MEANS."""
    counts: Floats
    """N x C: whole numbers, those of SUMMED."""


def tabulate(pairs: Sequence[tuple[str, str]]) -> OverlapTable:
    """Return the numbers that all figures are computed from. pairs: of a response and its reference."""
    rows = [_row(response, reference) for response, reference in pairs]
    means = np.array([mean for mean, _ in rows], np.float64).reshape(-1, len(MEANS))
    return OverlapTable(means, np.array([counts for _, counts in rows], np.float64).reshape(len(rows), -1))


def measure(table: OverlapTable, draws_BN: Index) -> dict[str, Floats]:
    """Return the figures of each line of `draws_BN` (row numbers, repeats allowed): {name: B}."""
    figures = {name: table.means[:, place][draws_BN].mean(1) for place, name in enumerate(MEANS)}
    sums_BC = sums(table.counts, draws_BN)
    figures |= {name: _of_sums(name, sums_BC[:, part]) for name, part in SUMMED.items()}
    return {name: figures[name] for name in FIGURES}


def each(table: OverlapTable) -> dict[str, Floats]:
    """Return the figures of every row alone: {name: N}. BLEU of one short answer means little and is not among them."""
    means = {name: table.means[:, place] for place, name in enumerate(MEANS)}
    return means | {name: _of_sums(name, table.counts[:, SUMMED[name]]) for name in ("chrf", "length_ratio")}


def signatures() -> dict[str, str]:
    """Return how BLEU and chrF are computed, as sacrebleu's signatures."""
    bleu, chrf = _sacrebleu()
    for metric in (bleu, chrf):
        metric.num_refs = 1
    return {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}


def deciding(references: Sequence[str]) -> str:
    """Return the figure that decides where only responses are known: `rougeL`, in which every response counts the same.

    Where more than half of the references have no letter a-z and no digit it is `chrf`: rouge-score ignores all other
    characters.
    """
    unseen = sum(not re.search("[a-z0-9]", text.lower()) for text in references)
    return "chrf" if 2 * unseen > len(references) else "rougeL"


def normalize(text: str) -> str:
    """Return a text as SQuAD compares answers: lower case, without punctuation and articles, single spaces."""
    characters = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", characters).split())


def token_f1(response: str, reference: str) -> float:
    """Return the F1 of the words of both, normalised (Rajpurkar et al. 2016); 1 where both are empty."""
    ours, theirs = normalize(response).split(), normalize(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


@lru_cache(maxsize=REMEMBERED)
def _row(response: str, reference: str) -> tuple[list[float], list[int]]:
    rouge = _rouge().score(reference, response)
    # Its corpus scores are sums of these whole numbers, which only private methods give; a test holds them to that.
    counted = [metric._extract_corpus_statistics([response], [[reference]])[0] for metric in _sacrebleu()]
    means = [*(rouge[name].fmeasure for name in ROUGE), token_f1(response, reference)]
    return means, [*counted[0], *counted[1], len(response.split()), len(reference.split())]


def _of_sums(name: str, sums_BC: Floats) -> Floats:
    if name == "length_ratio":
        return sums_BC[:, 0] / np.maximum(sums_BC[:, 1], 1)
    bleu, chrf = _sacrebleu()
    counts = [[int(value) for value in line] for line in sums_BC.tolist()]
    if name == "chrf":
        return np.array([chrf._compute_f_score(line) for line in counts], np.float64)
    return np.array([bleu._compute_score_from_stats(line).score for line in counts], np.float64)


@cache
def _rouge() -> Any:
    with processes.without("sklearn", "scipy.sparse", "scipy.stats"):  # which its stemmer's package nltk would import
        from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=True)


@cache
def _sacrebleu() -> tuple[Any, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU(force=True), CHRF()  # force: do not warn of texts that look tokenized
