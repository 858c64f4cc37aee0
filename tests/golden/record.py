"""Golden files: what commands said and wrote, made readable and free of what differs from run to run.

A file holds sections, each under a line `== title ==`. Text has to be equal, numbers with a point within a tolerance.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

TOLERANCE = 1e-6
"""Of a number with a point: relative above 1, else absolute."""
DIGITS = 9
"""Significant digits that are stored."""
VOLATILE = {"created", "environment", "hashes", "matmul_backend", "platform", "sha256", "speed", "tunesmith", "version"}
"""Keys of JSON whose values depend on machine, day or version; with those that end as below."""
ENDINGS = ("seconds", "seconds_per_1000", "_mb")
MARKS = [
    (r"(?m)^.*: \d+/\d+ .*\(\d+ s left\)\n", ""),
    (r"\d{4}-\d\d-\d\d[ T_]\d\d[:-]\d\d(?:[:-]\d\d)?", "<time>"),
    (r"(<time>_compare\w*)-\d+", r"\1"),  # a second run in the same second
    (r"\btunesmith \d+(?:\.\d+)+", "tunesmith <version>"),
    (r"\b\d[\d.,]* ?(?:ms|s|min|h)(?![\w'])(?: \d+ ?(?:min|s)\b)*", "<duration>"),
    (r"\b\d[\d.,]* ?(?:kB|MB|GB)\b", "<size>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"(?<= on cpu \().+?(?=\); )", "<device>"),
    (r"#[0-9a-f]{16}\b", "#<mark>"),
    (r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", "<id>"),
    (r'(?<="created": )\d{10}', "<time>"),
    (r'(?<="system_fingerprint": ")[0-9a-f]{12}', "<version>"),
    (r"(?<=\S) {2,}", "  "),
    (r"─+", "──"),
    (r"(?<=## Environment\n\n)(?:\|.*\n)+", "<environment>\n"),
    (r"(?<=\| Python \| ).+", "<environment>"),
]
"""Patterns of text that depends on clock, machine or version, and what stands in their place."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
WIDTH = 160
"""Of lines of JSON."""
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?:e[-+]?\d+)?(?![\w.])|(?<![\w.])\d+e[-+]?\d+\b")


@dataclass
class Record:
    """One golden file in the making."""

    file: Path
    workspace: Path
    """Folder whose name is left out."""
    update: bool = False
    tolerance: float = TOLERANCE
    sections: list[str] = field(default_factory=list)

    def add(self, title: str, text: str) -> None:
        """A section of text."""
        self.sections.append(f"== {title} ==\n{steady(nameless(text, self.workspace)).rstrip()}\n")

    def json(self, title: str, content: Any) -> None:
        """A section of JSON. The workspace's name goes first, as its length would move line breaks."""
        content = json.loads(nameless(json.dumps(content), self.workspace))
        self.add(title, laid_out(masked(content)))

    def files(self, folder: Path, *names: str) -> None:
        """A section for each file of a folder, by its kind; HTML as the text that is seen."""
        for name in names:
            text = (folder / name).read_text(encoding="utf-8")
            if name.endswith(".json"):
                self.json(name, json.loads(text))
            elif name.endswith(".jsonl"):
                lines = [masked(json.loads(line)) for line in text.splitlines()]
                self.add(name, "\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
            else:
                self.add(name, visible(text) if name.endswith(".html") else text)

    def check(self) -> None:
        """Hold everything against the file, or write it."""
        text = "\n".join(self.sections)
        if self.update:
            self.file.write_text(text, encoding="utf-8")
        assert self.file.exists(), f"there is no {self.file.name}: --update-golden writes it"
        golden = self.file.read_text(encoding="utf-8")
        assert not (found := difference(golden, text, self.tolerance)), f"{self.file.name} has changed:\n{found}"


def difference(golden: str, text: str, tolerance: float) -> str:
    """The lines that differ by more than the tolerance, as a diff; empty where none does."""
    before, after = golden.split("\n"), text.split("\n")
    if len(before) == len(after):
        after = [old if alike(old, new, tolerance) else new for old, new in zip(before, after, strict=True)]
    return "\n".join(difflib.unified_diff(before, after, "golden", "now", lineterm="", n=1))


def alike(one: str, other: str, tolerance: float) -> bool:
    """Whether two lines have the same text, and the same numbers within the tolerance."""
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    pairs = zip(map(float, NUMBER.findall(one)), map(float, NUMBER.findall(other)), strict=True)
    return all(abs(a - b) <= tolerance * max(1, abs(a)) for a, b in pairs)


def nameless(text: str, workspace: Path) -> str:
    """Text without the workspace's name, also where it is part of another name."""
    path = str(workspace)
    return text.replace(f"{path}/", "").replace(path, ".").replace(f"{path.strip('/').replace('/', '-')}-", "")


def steady(text: str) -> str:
    """Text without times, sizes and versions; control characters are made visible."""
    for pattern, mark in MARKS:
        text = re.sub(pattern, mark, text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def masked(content: Any) -> Any:
    """JSON with shortened numbers, and a mark for values that depend on the machine."""
    if isinstance(content, dict):
        return {
            key: "<volatile>" if value is not None and is_volatile(key) else masked(value)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [masked(each) for each in content]
    return float(f"{content:.{DIGITS}g}") if isinstance(content, float) else content


def is_volatile(key: str) -> bool:
    return key in VOLATILE or key.endswith(ENDINGS)


def laid_out(content: Any, indent: str = "") -> str:
    """JSON in which whatever fits into a line stands in one."""
    line = json.dumps(content, ensure_ascii=False)
    if len(indent) + len(line) <= WIDTH or not isinstance(content, dict | list):
        return line
    inner = f"{indent}  "
    if isinstance(content, dict):
        items = [f"{json.dumps(key)}: {laid_out(value, inner)}" for key, value in content.items()]
    else:
        items = [laid_out(each, inner) for each in content]
    opening, closing = "{}" if isinstance(content, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"


def visible(page: str) -> str:
    """The text of a page, a line for each paragraph, item or row of a table, without its drawings."""
    reader = _Reader()
    reader.feed(page)
    lines = (" ".join(line.split()).removeprefix("| ") for line in "".join(reader.pieces).split("\f"))
    return "\n".join(line for line in lines if line)


class _Reader(HTMLParser):
    """Collects text outside of styles, scripts and drawings."""

    HIDDEN = ("style", "script", "svg")
    CELLS = ("td", "th", "dt", "dd")
    INLINE = ("a", "b", "bdi", "br", "code", "em", "i", "img", "mark", "small", "span", "strong", "sub", "sup", "time")

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.depth += tag in self.HIDDEN
        if tag not in self.INLINE:
            self.pieces.append(" | " if tag in self.CELLS else "\f")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag in self.HIDDEN

    def handle_data(self, data: str) -> None:
        if not self.depth:
            self.pieces.append(data)
