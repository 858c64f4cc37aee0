"""Paired tests see what is there and no more, and the verdict says it in plain words."""

from dataclasses import replace

import numpy as np
import pytest

from tunesmith import records
from tunesmith.errors import RunError
from tunesmith.evaluation import metrics
from tunesmith.evaluation.intervals import Confidence, holm, mcnemar_exact, wilson
from tunesmith.evaluation.label_pairs import compare
from tunesmith.manifest import UNKNOWN_COSTS
from tunesmith.reporting.conclusions import of_labels
from tunesmith.reporting.schema import ClassificationResult
from tunesmith.types import Prediction

LABELS = ("no", "yes")


def draw_gold(rows, seed=0):
    return [LABELS[k] for k in np.random.default_rng(seed).integers(2, size=rows)]


def predict(gold, wrong):
    """Predictions that err in the rows of `wrong`."""
    return [predict_one(row, label, row in wrong) for row, label in enumerate(gold)]


def predict_one(row, label, err):
    said = LABELS.index(label) ^ err
    return Prediction(f"test:{row}", LABELS[said], (0.9, 0.1) if said == 0 else (0.1, 0.9))


# compare


def test_identical_predictions_cannot_be_told_apart():
    gold = draw_gold(60)
    same = predict(gold, {1, 2, 3})
    (pair,) = compare(gold, {"a": same, "b": list(same)}, LABELS, Confidence(resamples=500, seed=0))
    assert records.dump(pair) == {
        "a": "a",
        "b": "b",
        "rows": 60,
        "mcnemar": {"only_a_right": 0, "only_b_right": 0, "p": 1.0, "p_holm": 1.0},
        "accuracy_difference": {"value": 0.0, "low": 0.0, "high": 0.0},
        "macro_f1_difference": {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "p_holm": 1.0},
        "distinguishable": False,
    }


def test_a_planted_difference_is_found():
    gold = draw_gold(400)
    (pair,) = compare(
        gold,
        {"a": predict(gold, range(20)), "b": predict(gold, range(10, 60))},
        LABELS,
        Confidence(resamples=500, seed=0),
    )
    assert pair.mcnemar.only_a_right == 40
    assert pair.mcnemar.only_b_right == 10
    assert pair.mcnemar.p == mcnemar_exact(40, 10) < 0.001
    difference = pair.accuracy_difference
    assert difference.value == pytest.approx(30 / 400)
    # The paired standard error of the difference is sqrt(50 / 400 - 0.075^2) / 20 = 1.73 points.
    assert (difference.low, difference.high) == pytest.approx((0.075 - 0.034, 0.075 + 0.034), abs=0.006)
    assert 0 < pair.macro_f1_difference.low < pair.macro_f1_difference.value
    assert pair.macro_f1_difference.p == 2 / 501
    assert pair.distinguishable is True


def test_pairing_finds_what_separate_intervals_miss():
    # 3 points apart on mostly the same errors: the Wilson intervals overlap widely, the paired test is sure.
    gold = draw_gold(500)
    methods = {"a": predict(gold, range(100)), "b": predict(gold, range(115))}
    (pair,) = compare(gold, methods, LABELS, Confidence(resamples=500, seed=0))
    assert wilson(400, 500, 0.95)[0] < wilson(385, 500, 0.95)[1]
    assert pair.distinguishable


def test_methods_that_do_not_differ_are_rarely_told_apart():
    generator = np.random.default_rng(5)
    told, sure = 0, 0
    for _ in range(200):
        gold = draw_gold(150)
        a, b = (predict(gold, set(np.flatnonzero(generator.random(150) < 0.2))) for _ in "ab")
        (pair,) = compare(gold, {"a": a, "b": b}, LABELS, Confidence(resamples=199, seed=0))
        told += pair.distinguishable
        sure += pair.macro_f1_difference.p < 0.05
    # At most 5% of 200 are expected: 10, with a standard error of 3.
    assert told <= 19
    assert sure <= 19


def test_holm_goes_over_all_pairs():
    gold = draw_gold(200)
    errors = {"a": range(20), "b": range(10, 45), "c": range(30, 75), "d": range(5, 27)}
    methods = {name: predict(gold, wrong) for name, wrong in errors.items()}
    pairs = compare(gold, methods, LABELS, Confidence(resamples=500, seed=0))
    assert [pair.a + pair.b for pair in pairs] == ["ab", "ac", "ad", "bc", "bd", "cd"]
    for test in ("mcnemar", "macro_f1_difference"):
        assert [getattr(pair, test).p_holm for pair in pairs] == holm([getattr(pair, test).p for pair in pairs])
    assert [pair.distinguishable for pair in pairs] == [pair.mcnemar.p_holm < 0.05 for pair in pairs]
    assert any(pair.mcnemar.p < 0.05 <= pair.mcnemar.p_holm for pair in pairs)


def test_the_order_of_methods_only_turns_signs_and_equal_inputs_give_equal_bits():
    gold = draw_gold(120)
    a, b = predict(gold, range(12)), predict(gold, range(8, 30))
    (ab,) = compare(gold, {"a": a, "b": b}, LABELS, Confidence(resamples=500, seed=4))
    (ba,) = compare(gold, {"b": b, "a": a}, LABELS, Confidence(resamples=500, seed=4))
    assert [ab] == compare(gold, {"a": a, "b": b}, LABELS, Confidence(resamples=500, seed=4))
    for name in ("accuracy_difference", "macro_f1_difference"):
        assert getattr(ab, name).value == -getattr(ba, name).value
        assert getattr(ab, name).low == pytest.approx(-getattr(ba, name).high, abs=1e-12)
    assert ab.mcnemar.p == ba.mcnemar.p
    assert ab.macro_f1_difference.p == ba.macro_f1_difference.p


def test_one_method_makes_no_pair():
    gold = draw_gold(5)
    assert compare(gold, {"a": predict(gold, {1})}, LABELS, Confidence(resamples=500, seed=0)) == []


def test_rows_must_be_the_same_in_the_same_order():
    gold = draw_gold(5)
    a = predict(gold, {1})
    with pytest.raises(RunError, match=r"(?s)a and b .*expected: test:1 in row 2\n.*found: test:2\n.*do: give both"):
        compare(gold, {"a": a, "b": [a[0], a[2], a[1], *a[3:]]}, LABELS, Confidence(resamples=500, seed=0))
    with pytest.raises(RunError, match=r"(?s)expected: 5 rows\n.*found: 4 rows"):
        compare(gold, {"a": a, "b": a[:4]}, LABELS, Confidence(resamples=500, seed=0))


# verdict


def judge(gold, wrong, costs):
    """The verdict on methods that err in the rows of `wrong`, with (train_seconds, seconds_per_1000) as costs."""
    methods = {name: predict(gold, rows) for name, rows in wrong.items()}
    pairs = compare(gold, methods, LABELS, Confidence(resamples=500, seed=0))
    results = [
        result(name, metrics.score(gold, predictions, LABELS, Confidence(resamples=500, seed=0)), costs.get(name, ()))
        for name, predictions in methods.items()
    ]
    return of_labels(results, pairs)


def result(name, scores, costs):
    known = dict(zip(("train_seconds", "seconds_per_1000"), costs, strict=False))
    return ClassificationResult(name=name, description="", scores=scores, costs=replace(UNKNOWN_COSTS, **known))


GOLD = ["no"] * 225 + ["yes"] * 200


def test_verdict_on_one_method():
    assert judge(GOLD, {"encoder": range(40)}, {"encoder": (60,)}) == (
        "encoder gets 90.6% of 425 test rows right (95% interval 87.4% to 93.0%). "
        "Always answering 'no' would get 52.9%."
    )


def test_verdict_on_one_method_that_learned_nothing():
    assert judge(GOLD, {"encoder": range(190)}, {}) == (
        "encoder gets 55.3% of 425 test rows right (95% interval 50.5% to 60.0%). "
        "Always answering 'no' would get 52.9%: nothing here shows that encoder does better."
    )


def test_verdict_on_two_that_cannot_be_told_apart():
    wrong = {"probe": range(40), "encoder": range(10, 44)}
    assert judge(GOLD, wrong, {"probe": (3, 1.0), "encoder": (120, 1.1)}) == (
        "encoder gets 92.0% of 425 test rows right (95% interval 89.0% to 94.2%), the highest accuracy. "
        "probe and encoder are not significantly different on these 425 test rows (p = 0.18); "
        "probe trained 40 times faster. "
        "Nothing here shows that encoder is worth its cost."
    )


def test_verdict_where_the_best_is_clear():
    wrong = {"linear": range(80), "encoder": range(10, 44)}
    assert judge(GOLD, wrong, {"linear": (1,), "encoder": (120,)}) == (
        "encoder gets 92.0% of 425 test rows right (95% interval 89.0% to 94.2%), the highest accuracy. "
        "encoder beats linear (p < 0.001)."
    )


def test_verdict_on_a_tie_names_both_and_takes_the_cheaper():
    wrong = {"encoder": range(10, 44), "probe": range(34)}
    assert judge(GOLD, wrong, {"encoder": (7.2, 8.0), "probe": (3, 2.0)}) == (
        "probe and encoder share the highest accuracy: each gets 92.0% of 425 test rows right "
        "(95% interval 89.0% to 94.2%). "
        "encoder and probe are not significantly different on these 425 test rows (p > 0.99); "
        "probe trained 2.4 times faster and predicts 4.0 times faster. "
        "Nothing here shows that encoder is worth its cost."
    )


def test_verdict_does_not_recommend_what_predicts_slower():
    wrong = {"probe": range(40), "encoder": range(10, 44)}
    text = judge(GOLD, wrong, {"probe": (3, 20.0), "encoder": (120, 10.0)})
    assert text.endswith("(p = 0.18); probe trained 40 times faster but predicts 2.0 times slower.")


def test_verdict_says_nothing_of_unknown_or_equal_costs():
    wrong = {"probe": range(40), "encoder": range(10, 44)}
    for costs in ({}, {"probe": (100,), "encoder": (110,)}, {"probe": (None,), "encoder": (110,)}):
        assert judge(GOLD, wrong, costs).endswith("are not significantly different on these 425 test rows (p = 0.18).")


def test_verdict_on_a_method_without_training():
    wrong = {"prompted": range(40), "encoder": range(10, 44)}
    text = judge(GOLD, wrong, {"prompted": (0,), "encoder": (110,)})
    assert "; prompted needed no training. Nothing here shows that encoder is worth its cost." in text


def test_verdict_where_no_method_learned_anything():
    text = judge(GOLD, {"a": range(200), "b": range(5, 203)}, {})
    assert text.endswith("Always answering 'no' would get 52.9%: nothing here shows that any method does better.")


def test_verdict_on_four_methods():
    wrong = {"linear": range(90), "probe": range(40), "encoder": range(10, 44), "large": range(8, 45)}
    costs = {"linear": (1,), "probe": (3,), "encoder": (120,), "large": (4000,)}
    assert judge(GOLD, wrong, costs) == (
        "encoder gets 92.0% of 425 test rows right (95% interval 89.0% to 94.2%), the highest accuracy. "
        "encoder beats linear (p < 0.001). "
        "encoder is not significantly different from probe (p = 0.54) and large (p = 0.54) on these 425 test rows; "
        "probe trained 40 times faster than encoder. Nothing here shows that encoder is worth its cost."
    )


def test_verdict_on_ten_methods_stays_short():
    wrong = {f"m{n}": range(20, 50 + 2 * n if n < 5 else 80 + 8 * n) for n in range(10)}
    costs = {name: (10.0 * (n + 1),) for n, name in enumerate(wrong)}
    assert judge(GOLD, wrong, costs) == (
        "m0 gets 92.9% of 425 test rows right (95% interval 90.1% to 95.0%), the highest accuracy. "
        "m0 beats m5, m6, m7, m8 and m9 (largest p < 0.001). "
        "m0 is not significantly different from m1, m2, m3 and m4 (smallest p = 0.11) on these 425 test rows; "
        "m0 trained fastest of them."
    )


def test_verdict_names_thousands_and_other_levels():
    gold = GOLD * 10
    scores = metrics.score(gold, predict(gold, range(400)), LABELS, Confidence(0.99, 100, 0))
    text = of_labels([result("encoder", scores, ())], [])
    assert text.startswith("encoder gets 90.6% of 4,250 test rows right (99% interval 89.4% to 91.7%).")
