"""What a judge said so far: a line per verdict, appended as it comes; a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import JudgeError
from tunesmith.types import Message

KEY = "key"


@dataclass
class Journal:
    """An append-only JSON Lines file of verdicts by key. A question without a reply is asked again by the next run."""

    path: Path

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.entries: dict[str, dict[str, Any]] = {}
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                self.entries[entry[KEY]] = entry
            except (ValueError, LookupError, TypeError):
                raise JudgeError(
                    f"{self.path}:{number}: damaged", found=repr(line[:60]), do="delete the line: it is judged again"
                ) from None
        if len(whole) < len(content):  # a kill cut the last line: without its end the next would be glued to it
            os.truncate(self.path, len(whole))

    def __contains__(self, key: str) -> bool:
        """Whether there is a reply, with a verdict or without."""
        return key in self.entries and not self.entries[key]["failure"]

    def add(self, key: str, entry: Mapping[str, Any]) -> None:
        """Write one verdict, as one whole line."""
        line = {KEY: key, **entry}
        with self.path.open("ab", buffering=0) as file:
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        self.entries[key] = line


def file_name(name: str, identity: Mapping[str, Any]) -> str:
    """`llama3-1f2e3d.jsonl`: what people call a judge, and a hash of where and what it is, as names can be the same."""
    place = json.dumps([identity.get(part) for part in ("api", "url", "model")])
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "judge"
    return f"{readable}-{hashlib.sha256(place.encode()).hexdigest()[:6]}.jsonl"


def key(identity: Mapping[str, Any], messages: Sequence[Message], seed: int) -> str:
    """What a verdict is found by: judge, question and seed."""
    whole = json.dumps([identity, [asdict(message) for message in messages], seed], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]
