"""A predictor of labels or numbers that runs without transformers: a program beside tokenizer.json and config.json.

Shared by `onnx`, `openvino`, `torch-export` and `torchscript`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.console import say
from tunesmith.data import batches
from tunesmith.data.encode import kept
from tunesmith.protocols import Logits
from tunesmith.tasks import postprocessing, text_targets
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example

Inputs = dict[str, NDArray[np.int64]]
FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Input of a program -> attribute of an encoding of `tokenizers`."""
MAX_TOKENS = 512
"""Tokens of a batch, padding included: the fastest in ONNX Runtime (docs/decisions.md)."""


@dataclass(frozen=True)
class StandaloneClassifier:
    """A predictor of labels or numbers around a program."""

    target: Target
    tokenizer: Any
    """Neither truncates nor pads: `kept` and `_batch` do."""
    max_length: int
    """Tokens that the program reads; longer texts are cut."""
    truncation_side: str
    padding_side: str
    padding: Mapping[str, int]
    """Input -> its value behind shorter texts of a batch."""
    inputs: tuple[str, ...]
    """The program's inputs, keys of `FIELDS`."""
    call: Callable[[Inputs], Logits]
    """Inputs by name, B x T -> logits, B x K."""
    folder: Path
    max_tokens: int = MAX_TOKENS

    @classmethod
    def open(
        cls, folder: Path, inputs: Sequence[str], call: Callable[[Inputs], Logits], max_tokens: int = MAX_TOKENS
    ) -> StandaloneClassifier:
        """Return the classifier with label names and tokenizer from the folder."""
        from tokenizers import Tokenizer

        tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        padding, truncation = tokenizer.padding, tokenizer.truncation
        tokenizer.no_padding()
        tokenizer.no_truncation()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return cls(
            text_targets.of_config(config),
            tokenizer,
            truncation["max_length"],
            truncation["direction"],
            padding["direction"],
            {"input_ids": padding["pad_id"], "attention_mask": 0, "token_type_ids": padding["pad_type_id"]},
            tuple(inputs),
            call,
            folder,
            max_tokens,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities; none where a number is predicted."""
        return self.target.labels

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        """Return one prediction per example, in the order given."""
        if not examples:
            return []
        return self.target.predictions(examples, np.array(self.logits(examples), dtype=np.float64))

    def count_tokens(self, example: Example) -> int:
        """Number of tokens of an example before it is cut."""
        return len(self._encode([example])[0].ids)

    def rendered_prompt(self, example: Example) -> None:
        """There is no prompt."""

    def logits(self, examples: Sequence[Example]) -> list[Logits]:
        """Return the logits of each example, K; computed in batches of similar lengths, to save padding."""
        encodings = self._encode(examples)
        rows = [self._row(encoding) for encoding in encodings]
        if cut := sum(len(encoding.ids) > self.max_length for encoding in encodings):
            say(f"predict: {cut:,} of {len(rows):,} texts cut at {self.max_length} tokens (model.max_length)")
        logits: list[Any] = [None] * len(rows)
        for positions in batches.plan([len(row["input_ids"]) for row in rows], self.max_tokens):
            logits_BK = self.call(self._batch([rows[i] for i in positions]))
            for position, logits_K in zip(positions, logits_BK, strict=True):
                logits[position] = logits_K
        return logits

    def save(self, folder: Path) -> None:
        """Copy the folder that this was read from."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)

    def _encode(self, examples: Sequence[Example]) -> list[Any]:
        texts = [row.text if row.text_pair is None else (row.text, row.text_pair) for row in examples]
        encodings: list[Any] = self.tokenizer.encode_batch(texts)
        return encodings

    def _row(self, encoding: Any) -> dict[str, list[int]]:
        """Return the inputs of one text, cut at `max_length`."""
        row = {name: getattr(encoding, FIELDS[name]) for name in self.inputs}
        if len(encoding.ids) <= self.max_length:
            return row
        positions = kept(encoding.sequence_ids, self.max_length, self.truncation_side)
        return {name: [values[position] for position in positions] for name, values in row.items()}

    def _batch(self, rows: Sequence[dict[str, list[int]]]) -> Inputs:
        batch = {}
        longest = max(len(row["input_ids"]) for row in rows)
        for name in self.inputs:
            pads = [[self.padding[name]] * (longest - len(row[name])) for row in rows]
            if self.padding_side == "left":
                batch[name] = np.array([pad + row[name] for pad, row in zip(pads, rows, strict=True)])
            else:
                batch[name] = np.array([row[name] + pad for pad, row in zip(pads, rows, strict=True)])
        return batch


def write_example(folder: Path, target: Target | None, program: str, imports: str, load: str, run: str) -> None:
    """Write run.py, which shows how the folder is used without tunesmith."""
    assert target is not None
    helper, (*lines, answer) = postprocessing.of_logits(target)
    read = "\n    ".join([*lines, f'print({answer}, text, sep="\\t")'])
    text = EXAMPLE.format(program=program, imports=imports, load=load, run=run, read=read, helper=helper)
    (folder / "run.py").write_text(text, encoding="utf-8")


EXAMPLE = '''\
"""Predict with {program}: python run.py "a text" "another"; two texts joined by a tab are a pair."""
import json, sys
from pathlib import Path
{imports}
from tokenizers import Tokenizer
folder = Path(__file__).parent
config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # truncates and pads by itself
{load}
{helper}texts = [tuple(text.split("\\t")) if "\\t" in text else text for text in sys.argv[1:]]
rows = tokenizer.encode_batch(texts)
inputs = {{"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows],
          "token_type_ids": [row.type_ids for row in rows]}}
{run}
for text, row in zip(texts, logits):
    {read}
'''
