"""Agreement of scores: against scipy, against the published score files, and where there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import tunesmith
from tunesmith import cli
from tunesmith.errors import DataError
from tunesmith.evaluation.correlation import correlate
from tunesmith.evaluation.intervals import Confidence, resamples

DATA = Path(os.environ.get("TUNESMITH_DATA") or Path(__file__).parents[3] / "shared" / "data")
SCORES = DATA / "llms_from_scratch_ch07" / "scores"


def test_correlations_are_scipys() -> None:
    draw = np.random.default_rng(5)
    a = draw.integers(0, 101, 60)
    b = np.clip(a + draw.integers(-30, 31, 60), 0, 100)
    found = correlate([*a.tolist(), None, 3], [*b.tolist(), 5, None], Confidence(0.95, 300, 1))
    assert found.rows == 60
    expected = stats.pearsonr(a, b), stats.spearmanr(a, b), stats.kendalltau(a, b)
    for name, own in zip(("pearson", "spearman", "kendall"), expected, strict=True):
        assert getattr(found, name).value == pytest.approx(own.statistic, abs=1e-12)
        assert getattr(found, name).low < getattr(found, name).value < getattr(found, name).high
    assert found == correlate(a.tolist(), b.tolist(), Confidence(0.95, 300, 1))


def test_every_resample_is_ranked_anew() -> None:
    """Against scipy on the same draws, whose repeated rows are ties."""
    draw = np.random.default_rng(3)
    a, b = draw.integers(0, 9, 40).astype(float), draw.integers(0, 9, 40).astype(float)
    places = np.concatenate(list(resamples(40, 200, 7)))
    own = [stats.spearmanr(a[one], b[one]).statistic for one in places]
    found = correlate(a, b, Confidence(0.9, 200, 7), ["spearman"])
    assert (found.pearson, found.kendall) == (None, None)
    assert (found.spearman.low, found.spearman.high) == pytest.approx(tuple(np.quantile(own, [0.05, 0.95])))


def test_the_interval_is_near_fishers() -> None:
    """Of normal data, whose correlation has a known interval."""
    draw = np.random.default_rng(0)
    a = draw.normal(size=400)
    b = 0.7 * a + draw.normal(size=400) * 0.7
    found = correlate(a.tolist(), b.tolist(), Confidence(0.95, 2000, 0)).pearson
    own = stats.pearsonr(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((own.low, own.high), abs=0.02)


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1, 2]), ([5, 5, 5, 5], [1, 2, 3, 4]), ([], []), ([None] * 4, [1] * 4)])
def test_without_spread_there_is_no_correlation(a: list[float | None], b: list[float | None]) -> None:
    assert correlate(a, b, Confidence(0.95, 100, 0)).pearson is None


@pytest.mark.skipif(not SCORES.is_dir(), reason="needs the published score files: set TUNESMITH_DATA")
def test_the_published_scores_are_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{judge}-{model}-response" for model in ("model-1", "model-2") for judge in ("gpt4", "llama3-8b")]
    found = tunesmith.judge_scores(*(SCORES / f"{name}.json" for name in names))
    means = {file.name: (file.scored, round(file.mean.value, 2)) for file in found.files}
    assert means == {
        "gpt4-model-1-response": (100, 74.09),
        "llama3-8b-model-1-response": (100, 77.05),
        "gpt4-model-2-response": (100, 56.57),
        "llama3-8b-model-2-response": (99, 67.37),
    }
    assert found.files[0].mean.low == pytest.approx(65.7, abs=0.5)
    both = next(pair for pair in found.agreement if {pair.a, pair.b} == {names[0], names[1]})
    figures = {name: round(getattr(both, name).value, 4) for name in ("pearson", "spearman", "kendall")}
    assert figures == {"pearson": 0.8049, "spearman": 0.6984, "kendall": 0.5729}
    assert 0.65 < both.pearson.low < 0.75 < 0.85 < both.pearson.high < 0.92
    unequal = next(pair for pair in found.agreement if {pair.a, pair.b} == {names[2], names[3]})
    assert (unequal.rows, unequal.why) == (0, "100 and 99 scores are not of the same rows")
    assert cli.main(["judge", "--scores", *(str(SCORES / f"{name}.json") for name in names[:2])]) == 0
    assert "0.805 [0.7" in capsys.readouterr().out


def test_rows_with_ids_are_compared_by_them(tmp_path: Path) -> None:
    """As journals of `tunesmith judge` are: several seeds a row, controls, and rows without a score."""

    def line(name: str, score: int | None, **more: str) -> dict[str, object]:
        return {"id": name, "score": score} | more

    first = [line("a", 10), line("a", 20), line("b", 50), line("c", 90), line("x", None), line("a", 99, control="sure")]
    second = [line("c", 80), line("b", 40), line("a", 5), line("d", 1)]
    for name, rows in (("one", first), ("two", second)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = tunesmith.judge_scores(tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    one, two = found.files
    assert (one.scored, one.unscored, one.mean.value, two.scored) == (3, 1, (15 + 50 + 90) / 3, 4)
    assert found.agreement[0].rows == 3
    assert found.agreement[0].pearson.value == pytest.approx(stats.pearsonr([15, 50, 90], [5, 40, 80]).statistic)


@pytest.mark.parametrize("text", ["[1, 101]", "[true]", '{"a": 1}', '["a"]', "[1", '[{"id": 1}]', "[]", "[null]"])
def test_what_is_no_file_of_scores_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a(\.json)?: (no scores|broken JSON)"):
        tunesmith.judge_scores(tmp_path / "a.json")
