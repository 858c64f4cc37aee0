"""Every shipped recipe: it names real hub data and models, and runs on a tiny model of the same architecture."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tunesmith
from tests import tiny
from tests.conftest import write_csv
from tunesmith import cli, recipe as recipes
from tunesmith.pipeline.task_table import read_splits

FOLDER = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
HUB = {
    "yelp-bert": ("yelp_review_full", "google-bert/bert-base-cased", "bert"),
    "ag-news-distilbert": ("ag_news", "distilbert/distilbert-base-uncased", "distilbert"),
    "rte-distilbert": ("glue", "distilbert/distilbert-base-cased", "distilbert"),
    "imdb-logreg": ("stanfordnlp/imdb", None, None),
    "imdb-gpt2": ("stanfordnlp/imdb", "openai-community/gpt2", "gpt2"),
    "guanaco-opt-sft": ("timdettmers/openassistant-guanaco", "facebook/opt-350m", "opt"),
    "amazon-pythia-qlora": ("amazon_polarity", "EleutherAI/pythia-1b-deduped", "gpt_neox"),
    "alpaca-gpt2": ("vicgalle/alpaca-gpt4", "openai-community/gpt2", "gpt2"),
    "instructions-gpt2-medium": ("instruction-data.json", "openai-community/gpt2-medium", "gpt2"),
}
GENERATORS = ["guanaco-opt-sft", "amazon-pythia-qlora", "alpaca-gpt2", "instructions-gpt2-medium"]
CASES = [(name, family) for name, (_, _, family) in HUB.items() if name not in GENERATORS]
CASES += [("ag-news-distilbert", family) for family in ("bert", "roberta", "xlnet", "deberta", "modernbert")]


def test_the_list_is_complete_and_short() -> None:
    assert sorted(HUB) == NAMES
    assert len(NAMES) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_names_real_data_and_models(name: str) -> None:
    recipe = recipes.load(FOLDER / f"{name}.yaml")
    source, model, _ = HUB[name]
    assert recipe.data.path == source
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


REAL = Path(__file__).parents[3] / "shared" / "data"
ROWS = {
    "guanaco-opt-sft": [
        {"text": "### Human: What is @?### Assistant: A test.### Human: Why?### Assistant: To know"},
        {"text": "### Human: ### Assistant: Row @ has an empty turn, as a few of the real ones."},
    ],
    "amazon-pythia-qlora": [{"content": "good: @ works", "label": 1}, {"content": "bad: @ broke", "label": 0}],
    "alpaca-gpt2": [{"instruction": "Add.", "input": "2+@", "output": "4"}],
    "instructions-gpt2-medium": [{"instruction": "Go @.", "input": "", "output": "Gone."}],
}
"""A row of each kind, with a number for @; the tests use real ones where they are at hand."""
FILES = {
    "guanaco-opt-sft": "guanaco_1k/train.jsonl.gz",
    "amazon-pythia-qlora": "amazon_polarity/train.csv.gz",
    "alpaca-gpt2": "alpaca_gpt4_1k/train.jsonl.gz",
    "instructions-gpt2-medium": "llms_from_scratch_ch07/instruction-data.json",
}


def rows_of(name: str, folder: Path) -> Path:
    """Rows as the recipe's data set has them: the first 60 short ones of a real one, or made up."""
    import csv
    import gzip

    source = REAL / FILES[name]
    if not source.exists():
        made = enumerate(ROWS[name] * (60 // len(ROWS[name])))
        rows = [{k: v.replace("@", str(n)) if isinstance(v, str) else v for k, v in row.items()} for n, row in made]
    elif source.name.endswith(".csv.gz"):
        with gzip.open(source, "rt", encoding="utf-8") as file:
            rows = [{"content": row["text"], "label": int(row["label"])} for row in csv.DictReader(file)]
    elif source.suffix == ".gz":
        with gzip.open(source, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    else:
        rows = json.loads(source.read_text(encoding="utf-8"))
    path = folder / "rows.json"
    short = [row for row in rows if len(json.dumps(row)) < 360]  # bytes are tokens here
    path.write_text(json.dumps(short[:60]))
    return path


@pytest.mark.skipif(not REAL.exists(), reason="no real data at hand")
@pytest.mark.parametrize(
    ("name", "file", "settings", "rows", "dropped"),
    [
        ("guanaco-opt-sft", FILES["guanaco-opt-sft"], [], 848, 2),
        ("instructions-gpt2-medium", FILES["instructions-gpt2-medium"], [], 1100, 0),
        ("alpaca-gpt2", FILES["alpaca-gpt2"], ["test_size=0.1", "validation_size=0.1"], 800, 0),
        ("amazon-pythia-qlora", FILES["amazon-pythia-qlora"], ["data.text=text", "validation_size=0.1"], 4459, 0),
        ("yelp-bert", "yelp_review_full_1k", ["validation_size=0.1"], 1000, 0),
        ("ag-news-distilbert", "ag_news/train.csv.gz", [], 11598, 0),
        ("rte-distilbert", "rte/train.tsv.gz", [], 2490, 0),
        ("imdb-logreg", "imdb/train.csv.gz", [], 25000, 0),
    ],
)
def test_reads_its_real_data_as_it_is(name: str, file: str, settings: list[str], rows: int, dropped: int) -> None:
    """settings: of what the copy at hand calls its columns, or is smaller in; no row is mended or left out before."""
    recipe = recipes.load(FOLDER / f"{name}.yaml", [f"data.path={REAL / file}", *settings])
    splits = read_splits(recipe)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == rows
    assert sum(note.count for note in splits.notes if note.what.startswith("dropped")) == dropped


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_run(name: str, tmp_path: Path) -> None:
    """A tiny model of the recipe's own architecture, and rows of its own kind."""
    model = tiny.generator(HUB[name][2], tmp_path / "model")  # type: ignore[arg-type]
    names = ["data.label_names=[negative, positive]"] if name == "amazon-pythia-qlora" else []
    run = tunesmith.train(
        FOLDER / f"{name}.yaml",
        [
            f"data.path={rows_of(name, tmp_path)}",
            f"model.name_or_path={model}",
            "max_steps=2",
            "max_length=512",
            "test_size=6",
            "validation_size=6",
            "bootstrap_samples=100",
            "max_new_tokens=4",
            *names,
            f"output_dir={tmp_path}",
        ],
    )
    scores = run.read("scores.json")
    assert scores["rows"] == 6
    recipe, notes = run.recipe, run.finished.notes
    assert notes.layout == "packed"
    assert (run.model / "chat_template.jinja").exists()
    if name == "amazon-pythia-qlora":
        assert (recipe.adapter.r, recipe.adapter.lora_alpha, recipe.adapter.lora_dropout) == (16, 32, 0.05)
        assert recipe.train.per_device_train_batch_size * recipe.train.gradient_accumulation_steps == 16
        assert set(run.manifest.data.labels) == {"negative", "positive"}
        assert (run.model / "adapter_model.safetensors").exists()
    if name == "instructions-gpt2-medium":
        assert (recipe.seed, recipe.train.weight_decay, recipe.train.learning_rate) == (123, 0.1, 5e-5)


@pytest.mark.parametrize(("name", "family"), [("llama_factory", "llama"), ("trl", "gpt2"), ("transformers", "bert")])
def test_a_file_of_another_tool_trains_unchanged(
    name: str, family: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    """They name ./model and rows.json or rows.csv, which lie beside them."""
    if name == "transformers":
        (tmp_path / "model").symlink_to(tiny_models(family))
        write_csv(tmp_path / "rows.csv", tiny.texts(60), ("body", "topic"))
    else:
        template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        template += "{% if add_generation_prompt %}assistant: {% endif %}"
        (tiny.generator(family, tmp_path / "model") / "chat_template.jinja").write_text(template)
        rows = [{"instruction": f"Go {n}.", "input": "", "output": "Gone."} for n in range(60)]
        (tmp_path / "rows.json").write_text(json.dumps(rows))
    run = tunesmith.train(Path(__file__).parents[1] / "recipe" / "foreign" / f"{name}.yaml")
    assert run.manifest.status == "finished"
    assert run.path.parent == Path("out")
    if name != "transformers":
        assert run.finished.costs.trainable < run.finished.costs.parameters / 2  # LoRA


def commands() -> list[str]:
    """The commands in the heads of the recipes; a line that is indented goes on with the one before."""
    heads = [re.findall(r"^#(.*)", path.read_text("utf-8"), re.MULTILINE) for path in sorted(FOLDER.glob("*.yaml"))]
    joined = "\n".join("\n".join(head) for head in heads).replace("\n   ", " ")
    return re.findall(r"tunesmith (?:train|compare|sweep) .*", joined)


def test_heads_have_commands() -> None:
    assert len(commands()) == 3


@pytest.mark.usefixtures("trained_here")
@pytest.mark.parametrize("command", commands())
def test_commands_in_heads_run(
    command: str, tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are, on tiny models and rows of the same kind; of a sweep two trials."""
    _, name, *words = shlex.split(command)
    source, *rest = words
    shutil.copytree(FOLDER, tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    recipe, stem = recipes.load(source), Path(source).stem
    generator = tiny.generator("gpt_neox", tmp_path / "generator")
    own = generator if recipe.method == "generator" and name != "compare" else tiny_models("distilbert")
    if stem in FILES:
        rows = [f"data.path={rows_of(stem, tmp_path)}", "data.label_names=[negative, positive]"]
    else:
        rows = [f"data.path={write_csv(tmp_path / 'rows.csv', tiny.texts(60))}"]
    small = ["max_steps=1", "max_length=512", "test_size=6", "validation_size=6", "bootstrap_samples=100"]
    models = [f"model.name_or_path={own}", f"model.generator={generator}"]
    trials = ["--trials", "2"] if name == "sweep" else []
    assert cli.main([name, source, *trials, *rest, *rows, *small, *models, f"output_dir={tmp_path / 'runs'}"]) == 0
