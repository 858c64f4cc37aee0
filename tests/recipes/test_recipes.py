"""Every shipped recipe: it names real hub data and models, and runs on a tiny model of the same architecture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tunesmith
from tests import tiny
from tunesmith import recipe as recipes

FOLDER = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
HUB = {
    "yelp-bert": ("yelp_review_full", "google-bert/bert-base-cased", "bert"),
    "ag-news-distilbert": ("ag_news", "distilbert/distilbert-base-uncased", "distilbert"),
    "rte-distilbert": ("glue", "distilbert/distilbert-base-cased", "distilbert"),
    "imdb-logreg": ("stanfordnlp/imdb", None, None),
    "imdb-gpt2": ("stanfordnlp/imdb", "openai-community/gpt2", "gpt2"),
}
CASES = [(name, family) for name, (_, _, family) in HUB.items()]
CASES += [("ag-news-distilbert", family) for family in ("bert", "roberta", "xlnet", "deberta", "modernbert")]


def test_the_list_is_complete_and_short() -> None:
    assert sorted(HUB) == NAMES
    assert len(NAMES) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_names_real_data_and_models(name: str) -> None:
    recipe = recipes.load(FOLDER / f"{name}.yaml")
    data, model, _ = HUB[name]
    assert recipe.data.path == data
    assert model in (None, recipe.model.name_or_path)


def hub_data(folder: Path, recipe: recipes.Recipe) -> Path:
    """A local data set with the splits, columns and label features of the one on the hub, as parquet files."""
    from datasets import ClassLabel, Dataset, Features, Value

    labels = list(tiny.WORDS)
    columns = [recipe.data.text, *([recipe.data.text_pair] if recipe.data.text_pair else [])]
    features = Features({**dict.fromkeys(columns, Value("string")), recipe.data.label: ClassLabel(names=labels)})
    for number, split in enumerate(("train", "validation", "test")):
        rows = tiny.texts(60 if split == "train" else 30, seed=number)
        content = {column: [text for text, _ in rows] for column in columns}
        content[recipe.data.label] = [labels.index(label) for _, label in rows]
        folder.mkdir(exist_ok=True)
        Dataset.from_dict(content, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize(("name", "family"), CASES)
def test_runs(
    name: str, family: str | None, tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `datasets.load_dataset` as on the hub, with the data replaced by a local copy of the same shape."""
    import datasets

    path = FOLDER / f"{name}.yaml"
    local = hub_data(tmp_path / "hub", recipes.load(path))
    load_dataset = datasets.load_dataset
    asked = []

    def from_disk(source: str, config: str | None = None, **options: object) -> object:
        asked.append((source, config))
        options.pop("revision", None)
        return load_dataset(
            "parquet", data_files={s: str(local / f"{s}-*") for s in ("train", "validation", "test")}, **options
        )

    monkeypatch.setattr(datasets, "load_dataset", from_disk)
    model = [f"model.name_or_path={tiny_models(family)}"] if family else []
    run = tunesmith.train(
        path, [*model, "max_steps=2", "max_length=32", "bootstrap_samples=100", f"output_dir={tmp_path}"]
    )
    assert asked
    assert asked[0][0] == HUB[name][0]
    scores = run.read("scores.json")
    names = run.recipe.data.label_names or tuple(tiny.WORDS)  # AG News has four; the local copy has three of them
    assert scores["labels"] == list(names)[:3]
    assert 0 <= scores["headline"]["accuracy"]["low"] <= scores["headline"]["accuracy"]["high"] <= 1
    assert (run.path / "report.html").stat().st_size > 10_000
    predicted = tunesmith.predict(run, ["the goal"], text_pairs=["a match"] if "rte" in name else [], top_k=3)
    assert sum(predicted[0]["scores"].values()) == pytest.approx(1)
    json.dumps(predicted)
