"""Every command of the README, the docs and the recipes' heads runs: with tiny models and rows in the places named."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
from datasets import ClassLabel, Dataset, Features, Value

import tunesmith
from tests import tiny
from tests.documentation import FENCED, GENERATED, PAGES, ROOT, blocks
from tests.endpoint_server import Request, serving
from tunesmith import assets, cli, recipe as recipes
from tunesmith.pipeline.commands import train as training
from tunesmith.pipeline.fitting import subprocess
from tunesmith.runs import Run
from tunesmith.serving import server
from tunesmith.types import ResponseRow

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
INDENTED = re.compile(r"(?:^    .+\n)+", re.MULTILINE)
LAUNCHED = re.compile(r"^ *(?:(?:accelerate launch|torchrun) .*-m )?tunesmith (.+)$", re.MULTILINE)
INLINE = re.compile(r"`tunesmith ([^`]+)`")
MODELS = {
    "pypi:all-minilm-l6-v2": "bert",
    "pypi:smollm2-135m-instruct": "llama",
    "google-bert/bert-base-cased": "bert",
    "distilbert-base-uncased": "distilbert",
    "EleutherAI/pythia-1b-deduped": "gpt_neox",
}
"""Name of a model -> architecture of the tiny one in its place."""


def commands(page: Path) -> list[str]:
    """Return the commands of a page, without those in a sentence that are but a name."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    prose = FENCED.sub("", text)
    blocks = [*(block["code"] for block in FENCED.finditer(text)), *INDENTED.findall(prose)]
    in_sentences = [" ".join(command.split()) for command in INLINE.findall(INDENTED.sub("", prose))]
    return [
        *(command for block in blocks for command in LAUNCHED.findall(block)),
        *(command for command in in_sentences if len(words(command)) > 1),
    ]


def head(recipe: Path) -> str:
    """Return the comment before the first setting; what is indented goes on with the line before."""
    lines = re.match(r"(#.*\n)*", recipe.read_text(encoding="utf-8"))
    assert lines
    return re.sub(r"^# ?", "", lines[0], flags=re.MULTILINE).replace("\n  ", " ")


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


PLACES = [(command, page.name) for page in PAGES if page not in GENERATED for command in commands(page)]
PLACES += [(command, path.name) for path in RECIPES for command in re.findall("tunesmith (.+)", head(path))]
DOCUMENTED = {shlex.join(words(command.partition(" > ")[0])): page for command, page in reversed(PLACES)}
"""Every command once -> the page that has it first."""


def test_all_kinds_of_places_are_found() -> None:
    assert {page.rpartition(".")[2] for page in DOCUMENTED.values()} == {"md", "yaml"}
    assert {command.split()[0] for command in DOCUMENTED} >= set(cli.COMMANDS) - {"runs", "doctor"}


def test_commands_of_one_word_exist() -> None:
    for page in PAGES:
        names = re.findall(r"`tunesmith ([a-z][a-z-]*)`", page.read_text(encoding="utf-8"))
        assert set(names) <= set(cli.COMMANDS), page.name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_settings_in_a_recipes_head_resolve(path: Path) -> None:
    for setting in re.findall(r"(?<!\S)\w+\.\w+=[^\s,;]*\w", re.sub("tunesmith .+", "", head(path))):
        recipes.load(path, [setting])


# --- a folder in which the commands can be given


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files and runs that the commands name."""
    folder = tmp_path_factory.mktemp("documented")
    models = {name: folder / "models" / name for name in MODELS.values()}
    for name, path in models.items():
        if name in ("llama", "gpt_neox"):
            tiny.generator(name, path, max_position_embeddings=1024)  # of bytes, of which prompts have many
        else:
            tiny.model(name, path)
    place = folder / "place"
    for name in (name for name in MODELS if not name.startswith("pypi:")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(models[MODELS[name]])
    for name in ("recipes", "benchmarks"):
        (place / name).symlink_to(ROOT / name)
    rows, more = tiny.texts(60), tiny.texts(150)
    table = [
        {
            "text": text,
            "label": label,
            "review": text,
            "stars": label,
            "sentiment": label,
            "Message": text,
            "price": len(text),
            "source": "web",
            "rating": 1 + len(text) % 5,
        }
        for text, label in more
    ]
    tables = {
        "reviews": table[:130],
        "labelled": table[:130],
        "few": table[:48],
        "new": table[:12],
        "unlabelled": table[60:],
        "pool": table[130:],
    }
    for name, content in tables.items():
        Dataset.from_list(content).to_csv(str(place / f"{name}.csv"), index=False)
    (place / "data").mkdir()
    with contextlib.closing(sqlite3.connect(place / "shop.db")) as database, database:
        for number, name in enumerate(("reviews", "exam")):
            part = table[number * 65 : number * 65 + 65]
            Dataset.from_list(part).to_parquet(str(place / f"data/{number}.parquet"))
            database.execute(f"CREATE TABLE {name} (id INTEGER, text TEXT, label TEXT)")
            cells = [(number, row["text"], row["label"]) for number, row in enumerate(part)]
            database.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", cells)
    Dataset.from_list([{"text": text, "label": f"{label}|any"} for text, label in rows]).to_csv(
        str(place / "tagged.csv")
    )
    flags = [{"text": text, "toxic": n % 2, "insult": n % 3 // 2} for n, (text, _) in enumerate(rows)]
    Dataset.from_list(flags).to_csv(str(place / "flags.csv"), index=False)
    graded = [{"text": text, "label": ("ham", "spam")[n % 2], "stars": n % 5 + 1} for n, (text, _) in enumerate(rows)]
    for name in ("sms", "graded"):
        Dataset.from_list(graded).to_csv(str(place / f"{name}.csv"))
    for number, (text, label) in enumerate(rows):
        (folder / "bbc-news" / label).mkdir(parents=True, exist_ok=True)
        (folder / "bbc-news" / label / f"{number}.txt").write_text(text)
    pairs = [{"instruction": "How many words?", "input": text, "output": f"{len(text)}"} for text, _ in rows[:40]]
    for name in ("instructions", "prompts", "rows", "test"):
        (place / f"{name}.json").write_text(json.dumps(pairs if name == "instructions" else pairs[:4]))
    (place / "question.jsonl").write_text(json.dumps({"question_id": 1, "turns": ["Why?", "And then?"]}) + "\n")
    for name in ("gpt4", "llama3"):
        (place / f"{name}.json").write_text(json.dumps([10 * n + len(name) % 3 * n for n in range(8)]))
    (code,) = re.findall(
        r"`my_project.py`:\n\n```python\n(.*?)```", (ROOT / "docs/reference/engine.md").read_text(), re.DOTALL
    )
    (place / "my_project.py").write_text(code)
    labelling = {"data": {"path": str(place / "reviews.csv")}, "model": {"name_or_path": str(models["bert"])}}
    talking = {
        "task": "instruction",
        "data": {"path": str(place / "instructions.json")},
        "model": {"name_or_path": str(models["llama"])},
        "adapter": {"kind": "lora"},
        "generate": {"max_new_tokens": 4},
        "evaluate": {"bootstrap_samples": 100, "num_samples": 1},
    }
    untuned = ["num_train_epochs=0", "adapter.kind=none"]
    made = {
        "runs/ag-news": (labelling, []),
        "runs/assistant": (talking, ["max_steps=2"]),
        "COMPARISON/generator-full": (talking, ["max_steps=2", "adapter.kind=none"]),
        "COMPARISON/generator-untuned": (talking, untuned),
        **{f"RUN_{n}": (labelling, ["method=linear", f"seed={n}"]) for n in (1, 2, 3)},
    }
    for name, (source, settings) in made.items():
        tunesmith.train(source, settings, run_dir=place / name, quiet=True)
    tunesmith.audit(str(place / "reviews.csv"), method="linear", output=place / "audit")
    shutil.copytree(place / "runs/assistant", place / "runs/A")
    answers = [
        {"prompt": row.prompt, "reference": row.reference, "response": row.reference}
        for row in Run(place / "runs/A").predictions("test", ResponseRow)
    ]
    for name in ("answers", "answers-of-another-program"):
        (place / f"{name}.json").write_text(json.dumps(answers))
    (place / "runs/compare").mkdir()
    for name in ("current", "runs/compare/linear", "runs/compare/encoder"):
        (place / name).symlink_to(place / "runs/ag-news")
    for name in "ab":
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    return folder


class Planned(Exception):
    """Everything was checked and read; now it would train."""


@pytest.fixture
def place(
    folder: Path,
    trained_here: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Path]:
    """A copy of it as the working folder, where the models, data sets and services that commands name are tiny."""
    shutil.copytree(folder / "place", place := tmp_path / "place", symlinks=True)
    monkeypatch.chdir(place)
    for task, name in (("classification", "recipe.yaml"), ("instruction", "chat.yaml")):
        assert cli.main(["init", task]) == 0
        Path(name).write_text(capsys.readouterr().out)

    def fetch(name: str) -> assets.Asset:
        return assets.Asset(folder / "models" / MODELS[name] if name in MODELS else folder / "bbc-news", None)

    monkeypatch.setattr(assets, "fetch", fetch)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(server, "run", lambda *_: None)
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n/exit\n"))
    with serving(lambda _: "Score: 50") as judge, serving(label) as endpoint:
        urls = {"TUNESMITH_JUDGE_URL": judge.url, "TUNESMITH_ENDPOINT_URL": endpoint.url}
        for name, value in (urls | {"OPENAI_API_KEY": "sk-secret"}).items():
            monkeypatch.setenv(name, value)
        yield place


def label(request: Request) -> str:
    """A label of reviews.csv, as a model that is mostly right."""
    words_of_text = request.block("TEXT").split()
    return max(tiny.WORDS, key=lambda name: sum(word in tiny.WORDS[name] for word in words_of_text))


def load_dataset(name: str, config: str | None = None, **options: object) -> dict[str, Dataset]:
    """Rows in the columns of the hub's data sets."""
    labels = ["negative", "positive"] if name == "amazon_polarity" else list("12345")
    column = "content" if name == "amazon_polarity" else "text"
    features = Features({column: Value("string"), "label": ClassLabel(names=labels)})
    content = {column: [text for text, _ in tiny.texts(60)], "label": [n % len(labels) for n in range(60)]}
    return {split: Dataset.from_dict(content, features=features) for split in ("train", "test")}


def given(command: str, page: str) -> list[str]:
    """The words of a command: with a run of a kind that it takes, sizes of tiny splits, and services that are here."""
    found = words(re.sub(r"(validation_size|max_samples)=\d+", r"\1=12", command))
    if found[0] == "compare" and "--learning-curve" in found:
        found += ["--smallest", "2"]  # of a few rows
    answers = found[0] in ("chat", "judge", "merge") or {"gguf", "ollama"} & {*found}
    answers = answers or any(word.endswith(".json") for word in found)
    run = "runs/assistant" if answers else "runs/ag-news"
    found = [run if word == "RUN" and found[n - 1] != "--run-dir" else word for n, word in enumerate(found)]
    found = ["chat.yaml" if word == "recipe.yaml" and page == "sweeps.md" else word for word in found]
    for option in {"--url", "--endpoint.url"} & {*found}:
        del found[found.index(option) : found.index(option) + 2]
    found += ["validation_size=12", "max_samples=12"] if "recipes/" in command else []
    found += ["--smallest", "2"] if "--learning-curve" in found and found[0] == "compare" else []
    return found + {"serve": ["port=0"], "sweep": ["--trials", "1"]}.get(found[0], [])


@pytest.mark.parametrize(("command", "page"), DOCUMENTED.items())
def test_it_runs(
    command: str, page: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the page of benchmarks, up to the first training."""
    command_words = given(command, page)
    if page != "benchmarks.md":
        assert cli.main(command_words) == 0, capsys.readouterr().err
        return
    for word in re.findall(r"D/\S+", command):
        Path(word).parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(word, "wt", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if ".tsv" in word else ",")
            writer.writerow(["text", "sentence1", "sentence2", "label"])
            writer.writerows([text, text, f"{text}?", label] for text, label in tiny.texts(40, seed=len(word)))

    def stop(*_: object, **__: object) -> None:
        raise Planned

    monkeypatch.setattr(subprocess, "train", stop)
    monkeypatch.setattr(training, "fit", stop)
    if command_words[0] in ("compare", "train", "sweep"):
        with pytest.raises(Planned):
            cli.main(command_words)
    else:
        assert cli.main(command_words) == 0, capsys.readouterr().err


# --- Python


SERVED = "serving.md"
"""Its examples need a server: tests/serving/test_documented.py runs them."""
PYTHON = [page for page in PAGES if page.name != SERVED and blocks(page, "python")]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_python_runs(page: Path, place: Path) -> None:
    """The blocks of a page, one after the other, where names that the text takes as known are there."""
    table = pandas.read_csv("reviews.csv")
    known: dict[str, object] = {
        "tunesmith": tunesmith,
        "table": table,
        "texts": table["text"],
        "labels": table["label"],
        "reviews": table[["review", "stars"]],
        "new_reviews": table[["review"]],
    }
    known["run"] = place / "runs/ag-news"
    for block in blocks(page, "python"):
        run = place / "runs" / ("assistant" if re.search("CausalLM|chat_template", block) else "ag-news")
        for target in re.findall(r"RUN/export/([\w-]+)", block):
            tunesmith.export(Run(run), target)
        exec(compile(block.replace("RUN/", f"{run}/"), str(page), "exec"), known)
