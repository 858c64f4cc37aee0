"""Rows to label next: unsure ones first, unlike each other, and none twice."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from tunesmith.auditing import active_labelling
from tunesmith.types import Example


def clusters(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """10 clusters of 100 rows, 0 to 4 unsure: errors of 2 labels, features, and the cluster of each row."""
    draw = np.random.default_rng(seed)
    cluster_N = np.repeat(np.arange(10), 100)
    features_ND = 5 * np.eye(10)[cluster_N] + draw.normal(0, 0.1, (1000, 10))
    error_N = np.where(cluster_N < 5, draw.uniform(0.4, 0.5, 1000), draw.uniform(0, 0.05, 1000))
    return np.column_stack([error_N, -error_N]), features_ND, cluster_N


def test_unsure_rows_of_different_kinds_are_chosen() -> None:
    errors_NK, features_ND, cluster_N = clusters()
    few = [active_labelling.choose(errors_NK, features_ND, 5, seed) for seed in range(20)]
    assert np.mean([len({*cluster_N[five]} & {0, 1, 2, 3, 4}) for five in few]) > 3.5  # at random 2.1
    many = active_labelling.choose(errors_NK, features_ND, 60, seed=1)
    assert np.mean(cluster_N[many] < 5) > 0.85  # at random 0.5
    assert len(set(many)) == 60


def test_sparse_and_dense_features_choose_the_same() -> None:
    errors_NK, features_ND, _ = clusters()
    features_ND = np.round(features_ND, 2)
    dense, thin = (
        active_labelling.choose(errors_NK, features, 30, seed=3)
        for features in (features_ND, sparse.csr_matrix(features_ND))
    )
    assert dense == thin
    assert dense != active_labelling.choose(errors_NK, features_ND, 30, seed=4)


def test_rows_that_nothing_tells_apart_are_all_given() -> None:
    assert active_labelling.choose(np.zeros((4, 2)), np.ones((4, 3)), 9, seed=0) == [0, 1, 2, 3]
    errors_NK = np.array([[0.1, -0.1], [0.5, -0.5], [0.5, -0.5], [0.2, -0.2]])
    chosen = active_labelling.choose(errors_NK, np.ones((4, 1)), 4, seed=0)
    assert chosen[0] == 1
    assert sorted(chosen) == [0, 1, 2, 3]


def test_repeated_texts_are_left_out() -> None:
    labelled = [Example("a:1", "The cat sat."), Example("a:2", "One", "Two")]
    texts = ["the CAT  sat!", "A dog ran", "a dog ran", "!!!", "???", "The cat sat.", "ﬁne café"]
    pool = [Example(f"p:{n}", text) for n, text in enumerate([*texts, "fine CAFE\u0301"])]
    kept, same, repeated = active_labelling.without_duplicates(pool, labelled)
    assert [pool[n].text for n in kept] == ["A dog ran", "!!!", "???", "ﬁne café"]
    assert (same, repeated) == (2, 2)
    pairs = [Example("p:1", "one!", "TWO"), Example("p:2", "One", "three")]
    assert active_labelling.without_duplicates(pairs, labelled) == ([1], 1, 0)
