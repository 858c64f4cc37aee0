"""Ways to damage a file of a run, each of them seeded."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

PAGES = {"report.html", "report.md", "README.md", "training_loss.png"}
"""What no command reads."""
TRIES = 200
"""Until a damage is found that a file of the run can have, and that changes it."""


def damage(run: Path, sibling: Path, random: Random, number: int) -> tuple[str, str]:
    """Damage a file of a run; return its place in the run, and how. sibling: another run, for its files."""
    kinds = [*BYTES, *LINES, *JSON, "nan", "missing", "a folder", "swapped", "another model", "added"]
    kind = kinds[number % len(kinds)]
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in PAGES]
    files = [path for path in files if not path.name.endswith("-with-response.json")]
    for _ in range(TRIES):
        file = random.choice(files)
        if damaged(file, sibling / file.relative_to(run), kind, random):
            return str(file.relative_to(run)), kind
    if kind == "another model":
        shutil.rmtree(run / "model")
        shutil.copytree(sibling / "model", run / "model")
        return "model/hashes.json", kind
    (run / "model" / "adapter_config.json").write_text("{}")
    return "model/adapter_config.json", "added"


def damaged(file: Path, other: Path, kind: str, random: Random) -> bool:
    """Damage the file if that is possible, and say whether it was."""
    before = file.read_bytes()
    if kind in BYTES:
        after = BYTES[kind](before, random)
    elif kind in LINES and file.suffix == ".jsonl":
        after = b"".join(LINES[kind](before.splitlines(keepends=True), random))
    elif kind in JSON and file.suffix == ".json":
        content = json.loads(before)
        after = json.dumps(content, indent=2).encode() if JSON[kind](content, random) else before
    elif kind == "swapped" and other.is_file():
        after = other.read_bytes()
    elif kind == "nan" and file.suffix == ".safetensors":
        tensors = load_file(file)
        tensor = tensors[random.choice([name for name in tensors if tensors[name].dtype.kind == "f"])]
        tensor.flat[random.randrange(tensor.size)] = np.nan
        save_file(tensors, file, {"format": "pt"})
        return True
    elif kind in ("missing", "a folder"):
        file.unlink()
        if kind == "a folder":
            file.mkdir()
        return True
    else:
        return False
    file.write_bytes(after)
    return after != before


def _flipped(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def _with_bad_character(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + b"\xff\xfe" + content[place:]


BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    "cut": lambda content, random: content[: random.randrange(1, len(content))],
    "cut by a byte": lambda content, random: content[:-1],
    "empty": lambda content, random: b"",
    "a bit": _flipped,
    "another bit": _flipped,
    "a garbage header": lambda content, random: random.randbytes(16) + content[16:],
    "bad UTF-8": _with_bad_character,
    "zeros at the end": lambda content, random: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "deep nesting": lambda content, random: b"[" * 100_000,
    "null": lambda content, random: b"null",
}
LINES: dict[str, Callable[[list[bytes], Random], list[bytes]]] = {
    "half the lines": lambda lines, random: lines[: len(lines) // 2],
    "every line twice": lambda lines, random: lines * 2,
    "a line twice": lambda lines, random: [lines[0], *lines],
    "other order": lambda lines, random: lines[::-1],
}


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key or index) in parsed JSON."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(entries):
        yield content, key
        yield from _places(value)


def _without_a_key(content: Any, random: Random) -> bool:
    places = [(container, key) for container, key in _places(content) if isinstance(container, dict)]
    if not places:
        return False
    container, key = random.choice(places)
    del container[key]
    return True


def _of_another_type(content: Any, random: Random) -> bool:
    places = list(_places(content))
    if not places:
        return False
    container, key = random.choice(places)
    values: list[Any] = [None, 1, -1, "x", [], {}, ["x"], {"x": 1}, True, 10**400, math.nan, 1e308]
    container[key] = random.choice([value for value in values if type(value) is not type(container[key])])
    return True


def _reversed(content: Any, random: Random) -> bool:
    lists = [container[key] for container, key in _places(content) if isinstance(container[key], list)]
    lists = [values for values in lists if values != values[::-1]]
    if not lists:
        return False
    max(lists, key=len).reverse() if random.random() < 0.5 else random.choice(lists).reverse()
    return True


def _with_another_number(content: Any, random: Random) -> bool:
    places = [(container, key) for container, key in _places(content) if type(container[key]) in (int, float)]
    if not places:
        return False
    container, key = random.choice(places)
    container[key] = container[key] * 2 + 1
    return True


def _with_labels_swapped(content: Any, random: Random) -> bool:
    texts = [(container, key) for container, key in _places(content) if isinstance(container[key], str)]
    if len(texts) < 2:
        return False
    (one, first), (two, second) = random.sample(texts, 2)
    one[first], two[second] = two[second], one[first]
    return True


JSON: dict[str, Callable[[Any, Random], bool]] = {
    "a key less": _without_a_key,
    "another key less": _without_a_key,
    "another type": _of_another_type,
    "a value of another type": _of_another_type,
    "a list reversed": _reversed,
    "another number": _with_another_number,
    "two texts swapped": _with_labels_swapped,
}
