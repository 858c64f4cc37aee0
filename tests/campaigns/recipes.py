"""Recipes with settings that nobody would write: `check`, a dry run, overrides and training have to answer each."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests import conftest, tiny
from tests.campaigns.campaign import CLEAN, Campaign, Outcome, execute
from tunesmith.recipe import aliases

LENGTH = 8000
"""Characters of a message; more would be the echo of a value."""
NAMES = [name for name, _ in aliases.fields() if name != "judge.api_key"]  # which a dry run does not show
VALUES = (
    *(
        "1e999",
        "-1e999",
        ".inf",
        "-.inf",
        ".nan",
        "0x7fffffffffffffff",
        "010",
        "0o17",
        "1:30",
        "1_000",
        "1e3",
        "1e-400",
    ),
    *("9" * 30, "9" * 5000, "-1", "0", "1000000000", "no", "yes", "null", "~", "2026-01-02", "12:30:45", "=", "''"),
    *("[]", "{}", "[[]]", "[1, x]", "{a: {b: c}}", "{no: 1}", "{1: x, 1.5: y}", "{a: 1, a: 2}", '"\\e[31m"', '"\\0"'),
    *(
        "!!int x",
        "!!float x",
        "!!binary x",
        "!!set {a}",
        "!!omap [a: 1]",
        "!!timestamp x",
        "!!python/name:os.system ''",
    ),
    *("!x 1", "&a 1", "*a", "&a [*a]", "<<", "| text", "@x", "`x`", "%x", "? x", "- x", ": x", "#x", "'", '"', "\t"),
    *("a: b: c", "[", "{", "]", "x" * 100_000, "/" * 100_000, "a/" * 40_000, "é" * 300, "../" * 3000, "/dev/null", "/"),
    *("/proc/self/mem", "/dev/zero", ".", "", " ", "os:system", "tests:missing", "!!str 1", "+.5", "1.e", "0b12", "١٢"),
)
"""Values of the wrong types, forms and sizes, as YAML."""
SHAPES: tuple[Callable[[int], str], ...] = (
    lambda size: "a: " + "[" * size,
    lambda size: "".join(f"{' ' * depth}a:\n" for depth in range(min(size, 1000))),
    lambda size: "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(size)),
    lambda size: "a: &a {b: *a}\n",
    lambda size: "".join(f"key{n}: {n}\n" for n in range(size)),
    lambda size: "data: {path: reviews.csv}\n" * 2,
    lambda size: "train: {lr: 1, lr: 2}\n",
    lambda size: "train: {class_weights: {" + ", ".join(f"l{n}: 1" for n in range(size)) + "}}\n",
    lambda size: "seed: 1\n---\nseed: 2\n",
    lambda size: "- seed: 1\n",
    lambda size: "just text\n",
    lambda size: "\tseed: 1\n",
    lambda size: "seed:\t1\n",
    lambda size: "!!set {a, b}\n",
    lambda size: "1: x\nnull: y\n? [a]\n: z\n",
    lambda size: "<<: {seed: 7}\n",
    lambda size: "x" * size * 100,
    lambda size: "# comment\n" * size * 10,
    lambda size: "data: {path: reviews.csv}\r\nseed: 7\r\nmethod: linear\r\n",
)
SIZES = ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size", "max_position_embeddings")
LIMITS = (
    *("linear.word_ngrams: [1, 1000000000]", "linear.char_ngrams: [1, 20]", "linear.max_features: 1000000000"),
    *("split.max_samples: 1000000000", "evaluate.bootstrap_samples: 1000000000", "model.max_length: 1000000000"),
    *("train.per_device_train_batch_size: 1000000000", "train.gradient_accumulation_steps: 1000000000"),
    *("engine.max_tokens_per_micro_batch: 1000000000", "engine.save_total_limit: 1000000000"),
)
"""Settings that a training meets, or survives."""


def _value(draw: random.Random) -> str:
    name = draw.choice(NAMES)
    section, _, last = name.rpartition(".")
    line = f"{last}: {draw.choice(VALUES)}\n"
    return f"{section}:\n  {line}" if section else line


def _shape(draw: random.Random) -> str:
    return draw.choice(SHAPES)(draw.choice([30, 1000, 30_000]))


def _bytes(draw: random.Random) -> bytes:
    whole = "data: {path: reviews.csv, label: label}\nmethod: linear\nseed: 7\ntrain: {class_weights: {sport: 2}}\n"
    content = whole.encode(draw.choice(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"]))
    place = draw.randrange(len(content))
    end = draw.choice([b"", b"\xff", b"...\n", b"---\n", b"%YAML 9.9\n", b"\x85", "\u2028x".encode()])
    noise = draw.randbytes(draw.choice([1, 3, 50]))
    return draw.choice(
        [
            content[:place] + noise + content[place:],
            content[:place],
            content[:place] + b"\0" + content[place:],
            content + end,
        ]
    )


def _architecture(draw: random.Random) -> str:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    large = {name: draw.choice([10**10, 10**20]) for name in draw.sample(SIZES, draw.randint(1, 2))}
    settings = {"model_type": draw.choice(["bert", "llama", "roberta", "qwen3", "modernbert"])} | small | large
    tree = {"method": "encoder", "model": {"from_config": settings, "tokenizer": "model"}}
    return yaml.safe_dump(tree | {"data": {"path": "reviews.csv"}})


def _limit(draw: random.Random) -> str:
    section, _, setting = draw.choice(LIMITS).partition(".")
    model = "model: {name_or_path: model}\n" if section != "model" else ""
    setting += ", name_or_path: model" if section == "model" else ""
    method = "linear" if section in ("linear", "evaluate", "split") else "encoder"
    return f"method: {method}\ndata: {{path: reviews.csv}}\n{model}{section}: {{{setting}}}\n"


KINDS: tuple[Callable[[random.Random], str | bytes], ...] = (
    *(_value, _shape, _value, _bytes, _value, _limit, _value, _shape, _value, _bytes),
    *(_value, _shape, _value, _bytes, _value, _architecture, _value, _shape, _value, _bytes),
)


class Recipes(Campaign):
    """A recipe of the wrong types, depths, encodings and sizes, or such a setting on the command line."""

    name = "recipes"
    size = 500
    sample = 6

    def prepare(self, folder: Path) -> None:
        self.sources = conftest.write_csv(folder / "reviews.csv", tiny.texts(30)), tiny.model("bert", folder / "model")

    def attempt(self, number: int, folder: Path) -> Outcome:
        draw = self.random(number)
        make = KINDS[number % len(KINDS)]
        made = make(draw)
        content = made if isinstance(made, bytes) else made.encode()
        for source in self.sources:
            (folder / source.name).symlink_to(source)
        (folder / "recipe.yaml").write_bytes(content)
        words = draw.choice([["check", "recipe.yaml"], ["train", "recipe.yaml", "--dry-run"]])
        if make is _value and draw.random() < 0.5:
            *section, last = str(made).removesuffix("\n").split(":\n  ", 1)
            name, _, value = last.partition(": ")
            words = ["train", "reviews.csv", "--dry-run", f"{'.'.join([*section, name])}={value}"]
        elif make in (_limit, _architecture):
            words = ["train", "recipe.yaml", "--run-dir", "run", "train.max_steps=1"]
        result = execute(*words, folder=folder)
        outcome = result.outcome
        shown = f"{content[:300]!r}\ntunesmith {' '.join(words)[:300]}\n{result.stdout[-500:]}\n{result.stderr[-1500:]}"
        if outcome.kind not in CLEAN:
            return Outcome(outcome.kind, f"{shown}\n{outcome.detail[:300]}")
        if outcome.kind == "refused" and (len(result.stderr) > LENGTH or not _is_clear(result.stderr, words)):
            return Outcome("unclear", shown)
        if outcome.kind == "works" and "--dry-run" in words:
            wrong = _misread(content, words[1] != "recipe.yaml", result.stdout, folder)
            return Outcome("silent", f"{wrong}\n{shown}") if wrong else outcome
        return outcome


def _is_clear(message: str, words: list[str]) -> bool:
    """Return whether an error says which file or setting it is about."""
    named = (
        "recipe.yaml",
        "reviews.csv",
        "data.",
        "model.",
        "split.",
        "train.",
        "linear.",
        words[-1].partition("=")[0],
    )
    return "error: " in message and any(name in message for name in named)


def _misread(content: bytes, is_override: bool, printed: str, folder: Path) -> str:
    """Return what a dry run shows that is not what was written, read without the project; empty where all is well."""
    shown = yaml.safe_load(printed)
    section, _, line = content.decode(errors="replace").removesuffix("\n").rpartition(":\n  ")
    if is_override:  # what is not YAML is a text
        name, _, text = line.partition(": ")
        if not _different({section: {name: text}} if section else {name: text}, shown, folder):
            return ""
    node, written = yaml.compose(content, yaml.BaseLoader), yaml.load(content, yaml.BaseLoader)  # values are texts
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(content, yaml.BaseLoader)):
        return "an alias was taken"
    if node is not None and (twice := _repeated(node)):
        return f"{twice} is set twice"
    return _different(written or {}, shown, folder)


def _is_number(text: str) -> bool:
    try:
        return text != "" and float(text) == float(text)
    except ValueError:
        return False


def _repeated(node: yaml.Node) -> str:
    """Return a key that occurs twice in a mapping."""
    keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    inside = [value for _, value in node.value] if keys else node.value if isinstance(node.value, list) else []
    repeated = [str(key) for key in keys if keys.count(key) > 1]
    return next(iter(repeated), "") or next(filter(None, map(_repeated, inside)), "")


def _different(written: Any, shown: Any, folder: Path, name: str = "") -> str:
    """Return the first setting that does not show what was written. written: with texts only."""
    if isinstance(written, dict) and isinstance(shown, dict):
        known = {str(key): value for key, value in shown.items()}
        pairs = [(known[key], value, f"{name}.{key}") for key, value in written.items() if key in known]
        return next(filter(None, (_different(value, is_shown, folder, key) for is_shown, value, key in pairs)), "")
    if isinstance(written, list) and isinstance(shown, list) and len(written) == len(shown):
        return next(filter(None, (_different(*pair, folder, name) for pair in zip(written, shown, strict=True))), "")
    if isinstance(written, str):
        text = written.strip()
        if isinstance(shown, list) and len(shown) == 1:
            return _different(written, shown[0], folder, name)
        if shown is None or shown == []:
            same = text.lower() in ("", "null", "~", "no", "none")
        elif isinstance(shown, bool):
            same = text.lower() in (("yes", "true", "on", "1", "y") if shown else ("no", "false", "off", "0", "n"))
        elif isinstance(shown, int | float):
            same = _is_number(text) and float(text) == shown
        else:
            same = str(shown) in (written, text, os.path.abspath(folder / text)) or (text, shown) == ("no", "none")
        if same:
            return ""
    elif written == {} and isinstance(shown, dict):
        return ""
    return f"{name[1:]}: {str(written)[:100]!r} is shown as {str(shown)[:100]!r}"
