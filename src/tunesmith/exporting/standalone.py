"""A classifier that runs by itself: a program beside tokenizer.json and config.json, without transformers.

What `onnx`, `torch-export` and `torchscript` have in common.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.console import say
from tunesmith.data import batches, labels as names
from tunesmith.data.encode import kept
from tunesmith.protocols import Logits
from tunesmith.types import Example, Prediction

Inputs = dict[str, NDArray[np.int64]]
FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
MAX_TOKENS = 512
"""Tokens in memory at once, padding included: what was fastest in ONNX Runtime (docs/decisions.md)."""


@dataclass(frozen=True)
class StandaloneClassifier:
    """A classifier around a program. call: inputs by name, B x T -> logits, B x K."""

    labels: tuple[str, ...]
    tokenizer: Any
    """Neither cuts nor pads."""
    padding: dict[str, Any]
    truncation: dict[str, Any]
    inputs: tuple[str, ...]
    """Names of what the program wants."""
    call: Callable[[Inputs], Logits]
    folder: Path
    max_tokens: int = MAX_TOKENS

    @classmethod
    def open(
        cls, folder: Path, inputs: Sequence[str], call: Callable[[Inputs], Logits], max_tokens: int = MAX_TOKENS
    ) -> StandaloneClassifier:
        """Return the classifier with label names and tokenizer from the folder."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        padding, truncation = tokenizer.padding or {}, tokenizer.truncation or {}
        tokenizer.no_padding()  # rows are padded here, in groups of similar lengths
        tokenizer.no_truncation()  # and cut here: see `data.encode.kept`
        id2label = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        labels = tuple(id2label[key] for key in sorted(id2label, key=int))
        return cls(labels, tokenizer, padding, truncation, tuple(inputs), call, folder, max_tokens)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in the order given."""
        if not examples:
            return []
        logits_BK = np.array(self.logits(examples), dtype=np.float64)
        return names.predictions(examples, names.softmax(logits_BK), self.labels)

    @property
    def max_length(self) -> int | None:
        """Tokens that the program reads; what is longer is cut."""
        return self.truncation.get("max_length")

    def count_tokens(self, example: Example) -> int:
        """Tokens of an example, those that would be cut included."""
        (row,) = self.tokenizer.encode_batch([_pair(example)])
        return len(row.ids)

    def rendered_prompt(self, example: Example) -> None:
        """There is no prompt."""

    def logits(self, examples: Sequence[Example]) -> list[Logits]:
        """The logits of each example, K; computed in batches of similar length, so that little of one is padding."""
        limit = self.max_length
        encoded = self.tokenizer.encode_batch(list(map(_pair, examples)))
        rows = [self._given(row) for row in encoded]
        if cut := sum(limit is not None and len(row.ids) > limit for row in encoded):
            say(f"predict: {cut:,} of {len(rows):,} texts cut at {limit} tokens (model.max_length)")
        logits: list[Any] = [None] * len(rows)
        for positions in batches.plan([len(row["input_ids"]) for row in rows], self.max_tokens):
            logits_BK = self.call(self._batch([rows[i] for i in positions]))
            for position, logits_K in zip(positions, logits_BK, strict=True):
                logits[position] = logits_K
        return logits

    def save(self, folder: Path) -> None:
        """A copy of the folder that this was read from."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)

    def _given(self, row: Any) -> dict[str, list[int]]:
        """What the program is given of one text."""
        fields = {name: getattr(row, FIELDS[name]) for name in self.inputs}
        if self.max_length is None or len(row.ids) <= self.max_length:
            return fields
        places = kept(row.sequence_ids, self.max_length, self.truncation["direction"])
        return {name: [values[place] for place in places] for name, values in fields.items()}

    def _batch(self, rows: Sequence[dict[str, list[int]]]) -> Inputs:
        longest = max(len(row["input_ids"]) for row in rows)
        fill = {"ids": self.padding["pad_id"], "attention_mask": 0, "type_ids": self.padding["pad_type_id"]}
        return {
            name: np.array([self._padded(row[name], longest, fill[FIELDS[name]]) for row in rows])
            for name in self.inputs
        }

    def _padded(self, ids: list[int], length: int, fill: int) -> list[int]:
        pads = [fill] * (length - len(ids))
        return pads + ids if self.padding["direction"] == "left" else ids + pads


def _pair(example: Example) -> str | tuple[str, str]:
    return example.text if example.text_pair is None else (example.text, example.text_pair)


def write_example(folder: Path, program: str, imports: str, load: str, run: str) -> None:
    """run.py: how the folder is used without tunesmith."""
    text = EXAMPLE.format(program=program, imports=imports, load=load, run=run)
    (folder / "run.py").write_text(text, encoding="utf-8")


EXAMPLE = '''\
"""Label texts with {program}: python run.py "a text" "another"; two texts joined by a tab are a pair."""
import json, sys
from pathlib import Path
{imports}
from tokenizers import Tokenizer
folder = Path(__file__).parent
labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # cuts and pads by itself
{load}
texts = [tuple(text.split("\\t")) if "\\t" in text else text for text in sys.argv[1:]]
rows = tokenizer.encode_batch(texts)
given = {{"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows],
         "token_type_ids": [row.type_ids for row in rows]}}
{run}
for text, row in zip(texts, logits):
    print(labels[str(row.argmax())], text, sep="\\t")
'''
