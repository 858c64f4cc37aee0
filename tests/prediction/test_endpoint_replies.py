"""Probabilities of labels from the log-probabilities of a reply's tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from tunesmith.data.label_questions import LabelQuestion
from tunesmith.endpoints.chat_client import TokenAlternatives
from tunesmith.prediction import endpoint_replies

Tree = Mapping[str, tuple[float, "Tree"]]
"""The next tokens: their probabilities, and what follows."""
END = "<end>"
WORDS: Tree = {
    "Wo": (0.3, {"rld": (0.9, {END: (1, {})}), "w": (0.1, {})}),
    "Sp": (0.4, {"orts": (1.0, {END: (1, {})})}),
    "Sci": (0.2, {"/": (0.95, {"Tech": (1.0, {})}), "ence": (0.05, {})}),
    " Business": (0.06, {}),
    "Bus": (0.03, {"iness": (1.0, {})}),
    "I": (0.01, {}),
}
LABELS = ("Business", "Sci/Tech", "Sports", "World")


def question(*labels: str) -> LabelQuestion:
    return LabelQuestion(labels, labels, "Which?")


def greedy(tree: Tree, listed: int = 20, prefix: tuple[str, ...] = ()) -> tuple[str, list[TokenAlternatives]]:
    """The reply of a model that writes by this tree, with as many alternatives to each token as are listed."""
    tokens = [TokenAlternatives(token, {token: 0.0}) for token in prefix]
    while tree:
        ranked = sorted(tree.items(), key=lambda item: -item[1][0])
        token, (_, tree) = ranked[0]
        if token == END:
            break
        tokens.append(TokenAlternatives(token, {name: math.log(p) for name, (p, _) in ranked[:listed]}))
    return "".join(token.token for token in tokens), tokens


def test_probabilities_are_those_of_the_tokens_that_lead_to_each_label() -> None:
    text, tokens = greedy(WORDS)
    assert text == "Sports"
    found = endpoint_replies.probabilities(question(*LABELS), text, tokens)
    # alternatives away from the reply count as the labels that can follow; " Business" is none, nor is "I"
    expected = np.array([0.03, 0.2, 0.4, 0.3])
    assert found == pytest.approx(expected / expected.sum(), abs=1e-12)


def test_white_space_before_a_label_and_a_json_object_change_nothing() -> None:
    plain = endpoint_replies.probabilities(question(*LABELS), *greedy(WORDS))
    text, tokens = greedy(WORDS, prefix=('{"', "label", '": "'))
    ended = [*tokens, TokenAlternatives('"}', {'"}': 0.0})]
    assert endpoint_replies.probabilities(question(*LABELS), text + '"}', ended) == pytest.approx(plain, abs=1e-12)
    text, tokens = greedy(WORDS, prefix=("\n",))
    assert endpoint_replies.probabilities(question(*LABELS), text, tokens) == pytest.approx(plain, abs=1e-12)


def test_labels_that_are_not_listed_share_what_is_not_listed() -> None:
    found = endpoint_replies.probabilities(question(*LABELS), *greedy(WORDS, listed=2))
    # "Sp" 0.4 and "Wo" 0.3 are listed: 0.3 is left for the two others
    assert found == pytest.approx([0.15, 0.15, 0.4, 0.3], abs=1e-12)


def test_a_token_that_several_labels_begin_with_counts_for_them_in_equal_parts() -> None:
    tree: Tree = {"ne": (0.6, {"gative": (1.0, {})}), "p": (0.4, {})}
    found = endpoint_replies.probabilities(question("negative", "positive", "poor"), *greedy(tree))
    assert found == pytest.approx([0.6, 0.2, 0.2], abs=1e-12)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Sports", []),
        ("Sports", [TokenAlternatives("Spo", {"Spo": -0.1})]),  # tokens of another text
        ("Nothing", [TokenAlternatives("Nothing", {"Nothing": -0.1, "Sports": -3.0})]),  # no label
        ("Sports", [TokenAlternatives("Sports", {"Sports": -2.0, "I": -0.2})]),  # seldom a label
    ],
)
def test_there_are_none_where_the_tokens_do_not_tell(text: str, tokens: list[TokenAlternatives]) -> None:
    assert endpoint_replies.probabilities(question(*LABELS), text, tokens) is None
