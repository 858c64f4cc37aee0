"""What users without tunesmith run decides as tunesmith does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunesmith.recipe import Decide
from tunesmith.tasks import calibration, decisions, postprocessing, text_targets
from tunesmith.tasks.classification import SingleLabel
from tunesmith.types import Example

LABELS = ("ham", "maybe", "spam")
ASKED: list[dict[str, Any]] = [
    {},
    {"costs": {"ham": {"spam": 10}, "maybe": {"ham": 0.5}}},
    {"target": {"label": "spam", "precision": 0.9}},
]


@pytest.mark.parametrize("kind", ["none", *calibration.METHODS])
@pytest.mark.parametrize("asked", ASKED, ids=["most probable", "costs", "threshold"])
def test_the_function_of_run_py_gives_the_same_labels(kind: str, asked: dict[str, Any]) -> None:
    draw = np.random.default_rng(0)
    logits_NK = draw.normal(size=(400, 3)) * 3
    gold_N = np.array([draw.choice(3, p=p) for p in np.exp(calibration.log_softmax(logits_NK / 2))])
    p_NK = np.exp(calibration.log_softmax(logits_NK))
    settings = Decide.model_validate({"calibration": kind, **asked})
    target = SingleLabel(LABELS, decisions.choose(p_NK, gold_N, SingleLabel(LABELS), settings, 0).decision)
    (code, (line,)) = postprocessing.of_logits(target)
    names: dict[str, Any] = {"numpy": np, "config": text_targets.to_config(target)}
    exec(code, names)
    examples = [Example(str(n), "") for n in range(400)]
    expected = [prediction.label for prediction in target.predictions(examples, logits_NK)]
    assert [eval(line, names | {"row": row}) for row in logits_NK.astype(np.float32)] == expected


def test_a_label_without_a_decision_is_the_most_probable() -> None:
    code, lines = postprocessing.of_logits(SingleLabel(LABELS))
    assert (code, lines) == ("", ['config["id2label"][str(row.argmax())]'])
