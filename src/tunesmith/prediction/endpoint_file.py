"""endpoint.json: how a model behind an endpoint is prompted, without its key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import records
from tunesmith.prediction.endpoint_prompts import EndpointPrompt
from tunesmith.records import omitted_if_none

FILE = "endpoint.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFile:
    """What endpoint.json holds."""

    settings: dict[str, Any]
    """The section `endpoint` of the recipe, with the model and the address that were used."""
    seed: int = 0
    prompt: EndpointPrompt | None = omitted_if_none()
    """How labels or numbers are asked for; None where conversations are answered."""
    target: dict[str, Any] | None = omitted_if_none()
    """What is predicted, as `text_targets.to_settings` says it."""
    system: str | None = omitted_if_none()
    """A system message before every conversation that has none."""


def write(folder: Path, content: EndpointFile) -> None:
    """Write the file into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(records.encode(content, f"write {FILE}") + "\n", encoding="utf-8")


def read(folder: Path) -> EndpointFile:
    """Return what the file in a folder holds. Raises OSError, ValueError or RunError where it is damaged."""
    path = folder / FILE
    return records.load(EndpointFile, records.parse(path.read_bytes()), str(path))
