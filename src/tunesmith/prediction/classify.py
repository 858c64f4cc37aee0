"""Predictors over neural models: a fine-tuned encoder, and a frozen one with a regression on its embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn

from tunesmith import processes, records
from tunesmith.console import say, silence, track
from tunesmith.data import batches, encode
from tunesmith.data.batches import Batch
from tunesmith.data.rows import merge
from tunesmith.data.shots import Embed
from tunesmith.data.text_keys import text_key
from tunesmith.errors import ModelError
from tunesmith.manifest import TrainingNotes
from tunesmith.models import linear, onednn_linear, packing, pooling, pretrained, unpadding
from tunesmith.models.linear import Regression
from tunesmith.models.newton import ColumnBlocks
from tunesmith.prediction import integrated_gradients
from tunesmith.prediction.attribution import TokenContributions
from tunesmith.protocols import ModelParts, ProbeHead, TrainResult
from tunesmith.recipe import Generate, Linear, Model, Probe
from tunesmith.tasks import text_targets
from tunesmith.tasks.text_targets import Target
from tunesmith.types import DataNote, Example, TextKey

Floats = NDArray[np.float64]
BLOCK = 1 << 15
"""Texts that are tokenized and sorted by length at once."""
BODY, HEAD, SETTINGS = "encoder", "probe.safetensors", "probe.json"


@dataclass(frozen=True)
class Encoder:
    """A model with its tokenizer: examples in, rows of numbers out."""

    model: nn.Module
    tokenizer: pretrained.Tokenizer
    max_length: int
    max_tokens: int | str = "auto"
    """Tokens in memory at once, padding included."""
    layout: batches.EncoderLayout | None = None
    """How texts lie in memory; None for padded rows."""

    def rows(
        self, examples: Sequence[Example], read: Callable[[Any, Batch], torch.Tensor], title: str
    ) -> tuple[Floats, list[DataNote]]:
        """Return `read(model output, batch)` for every example, in the order given, and what `max_length` cut.

        The batches hold examples of similar length, in `layout`.
        """
        blocks = [examples[start : start + BLOCK] for start in range(0, len(examples), BLOCK)]
        parts = [self._rows(list(block), read, title) for block in blocks]
        changes = merge(change for _, notes in parts for change in notes)
        for change in changes:
            say(f"{title}: {change.count:,} of {len(examples):,} texts {change.what}")
        return np.concatenate([rows for rows, _ in parts] or [np.zeros(0)]), list(changes)

    def _rows(
        self, examples: Sequence[Example], read: Callable[[Any, Batch], torch.Tensor], title: str
    ) -> tuple[Floats, list[DataNote]]:
        self.model.eval()
        encoded, changes = encode.encode(examples, self.tokenizer, self.max_length)
        layout = self.layout or batches.Padded(self.tokenizer)

        def compute(groups: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
            outputs = []
            for positions in track(groups, title):
                batch = layout.collate([encoded[i] for i in positions]).to(self.device)
                with torch.inference_mode(), onednn_linear.enabled():
                    outputs.append(read(unpadding.run(self.model, batch), batch).float().cpu().numpy())
            return outputs

        plan = layout.plan(encoded, batches.token_budget(self.max_tokens, self.device))
        rows: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(examples)
        for positions, output in zip(plan, processes.share(plan, compute), strict=True):
            for position, row in zip(positions, output, strict=True):
                rows[position] = row
        return np.array(rows, dtype=np.float64), changes

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class RememberingEncoder(Encoder):
    """An encoder that computes each text once, whatever is fitted to its rows afterwards.

    `rows` must always be given the same `read`.
    """

    memory: dict[TextKey, NDArray[np.float32]] = field(default_factory=dict)
    """The row of each text so far."""

    @classmethod
    def of(cls, encoder: Encoder) -> RememberingEncoder:
        """Return an encoder with an empty memory."""
        return cls(encoder.model, encoder.tokenizer, encoder.max_length, encoder.max_tokens, encoder.layout)

    def rows(
        self, examples: Sequence[Example], read: Callable[[Any, Batch], torch.Tensor], title: str
    ) -> tuple[Floats, list[DataNote]]:
        """Return the rows of all examples; the notes are of those that were not in the memory."""
        new = {text_key(example): example for example in examples if text_key(example) not in self.memory}
        changes: list[DataNote] = []
        if new:
            rows, changes = super().rows(list(new.values()), read, title)
            self.memory.update(zip(new, rows.astype(np.float32), strict=True))
        return np.array([self.memory[text_key(example)] for example in examples], dtype=np.float64), changes


@dataclass(frozen=True)
class EncodedPredictor:
    """Base class of a fine-tuned encoder and a probe: their texts go through one encoder."""

    target: Target
    encoder: Encoder

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the probabilities."""
        return self.target.labels

    @property
    def max_length(self) -> int:
        """Tokens that are read, at most; longer texts are cut."""
        return self.encoder.max_length

    def count_tokens(self, example: Example) -> int:
        """Return the number of tokens before cutting."""
        return len(self.encoder.tokenizer(example.text, example.text_pair, verbose=False)["input_ids"])

    def rendered_prompt(self, example: Example) -> None:
        """Return None: there is no prompt."""

    def parts(self) -> ModelParts:
        encoder = self.encoder
        return ModelParts(encoder.model, encoder.tokenizer, encoder.max_length)

    def parity_rows(self, examples: Sequence[Example], settings: Generate) -> list[Example]:
        return list(examples)

    def with_model(self, model: nn.Module) -> Self:
        return replace(self, encoder=replace(self.encoder, model=model))


@dataclass(frozen=True)
class EncoderPredictor(EncodedPredictor):
    """A fine-tuned sequence classifier."""

    def logits(self, rows: Sequence[Example]) -> list[Floats]:
        """Return K logits for each example."""
        return list(self.encoder.rows(rows, lambda output, batch: output.logits, "compare")[0])

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        if not examples:
            return []
        logits, _ = self.encoder.rows(examples, lambda output, batch: output.logits, "predict")
        return self.target.predictions(examples, logits)

    @property
    def locates_tokens(self) -> bool:
        """Whether the tokenizer tells which characters a token stands for."""
        return bool(self.encoder.tokenizer.is_fast)

    def integrated_gradients(
        self, example: Example, output: int, points: int, on_batch: Callable[[], None]
    ) -> TokenContributions:
        """Return what each token adds to the score of an output, beginning with masks (or padding) in their places."""
        encoder, tokenizer = self.encoder, self.encoder.tokenizer
        encoding = tokenizer(example.text, example.text_pair, return_offsets_mapping=True, verbose=False)
        texts, offsets = encoding.sequence_ids(0), encoding.pop("offset_mapping")
        kept = list(range(len(texts)))
        if len(texts) > encoder.max_length:
            kept = encode.kept(texts, encoder.max_length, tokenizer.truncation_side)
        inputs = {name: torch.tensor([[row[k] for k in kept]], device=encoder.device) for name, row in encoding.items()}
        inner = [place for place, k in enumerate(kept) if texts[k] is not None]
        blank = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.pad_token_id
        baseline_ids = inputs["input_ids"].clone()
        baseline_ids[0, inner] = blank
        rows = max(1, batches.token_budget(encoder.max_tokens, encoder.device) // len(kept))
        score = integrated_gradients.score_of(self.target, output)
        with packing.evaluating(encoder.model):
            contributions_T, whole, baseline = integrated_gradients.contributions(
                encoder.model, inputs, baseline_ids, score, points, rows, on_batch
            )
        places = [(texts[kept[place]], offsets[kept[place]]) for place in inner]
        return TokenContributions(places, contributions_T[inner].tolist(), whole, baseline)

    def save(self, folder: Path) -> None:
        """Write plain Hugging Face files; label names are in config.json, max_length in tokenizer_config.json."""
        self.encoder.tokenizer.model_max_length = self.encoder.max_length
        text_targets.write_config(packing.inner(self.encoder.model).config, self.target)
        pretrained.save(folder, self.encoder.model, self.encoder.tokenizer)

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False) -> EncoderPredictor:
        model, tokenizer = pretrained.saved_classifier(folder, trust_remote_code)
        config: Any = model.config
        layout, _ = layout_of(model, tokenizer)
        encoder = Encoder(model, tokenizer, tokenizer.model_max_length, layout=layout)
        return cls(text_targets.of_config(config.to_dict()), encoder)


def layout_of(model: nn.Module, tokenizer: pretrained.Tokenizer) -> tuple[batches.EncoderLayout, str | None]:
    """Return the layout for a model, and why it pads if it does; accelerators always do, for their kernels."""
    device = next(model.parameters()).device
    layout = unpadding.find(model, tokenizer) if device.type == "cpu" else f"it runs on {device.type}"
    return (batches.Padded(tokenizer), layout) if isinstance(layout, str) else (layout, None)


@dataclass(frozen=True)
class ProbePredictor(EncodedPredictor):
    """A regression on a frozen encoder's embeddings."""

    settings: Probe
    regression: Regression

    def parts(self) -> ModelParts:
        head = ProbeHead(self.settings, self.regression.weight, self.regression.bias)
        return replace(super().parts(), head=head)

    def embeddings(self, examples: Sequence[Example]) -> Floats:
        """Return what the regression reads, examples x hidden size."""
        return embed(self.encoder, examples, self.settings)[0]

    def logits(self, rows: Sequence[Example]) -> list[Floats]:
        """Return K logits for each example; for two classes the first is 0."""
        features, _ = embed(self.encoder, rows, self.settings)
        return list(self.regression.logits(features @ self.regression.weight.T, len(self.labels)))

    def predict(self, examples: Sequence[Example]) -> list[Any]:
        return self.target.predictions(examples, np.array(self.logits(examples))) if examples else []

    def save(self, folder: Path) -> None:
        self.encoder.tokenizer.model_max_length = self.encoder.max_length
        pretrained.save(folder / BODY, self.encoder.model, self.encoder.tokenizer)
        save_file(self.regression.tensors(), folder / HEAD)
        content = {**text_targets.to_settings(self.target), "settings": self.settings.model_dump(mode="json")}
        (folder / SETTINGS).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False) -> ProbePredictor:
        content = records.parse((folder / SETTINGS).read_bytes())
        model = Model(name_or_path=str(folder / BODY), trust_remote_code=trust_remote_code)
        tokenizer = pretrained.tokenizer(model)
        encoder = Encoder(pretrained.body(model, tokenizer), tokenizer, tokenizer.model_max_length)
        tensors = linear.read(folder / HEAD)
        regression = Regression(tensors["weight"], tensors["bias"])
        return cls(text_targets.of_settings(content), encoder, Probe(**content["settings"]), regression)


def fit_probe(
    encoder: Encoder,
    examples: Sequence[Example],
    target: Target,
    settings: Probe,
    regression: Linear,
    weights: Floats,
) -> TrainResult:
    """Embed the training texts once and fit the regression on them. weights: one per label."""
    try:
        embed(encoder, examples[:1], settings)
    except (AttributeError, TypeError, ValueError) as error:  # not one hidden state a token
        name = type(encoder.model).__name__
        raise ModelError(
            f"{name} cannot be probed", found=str(error), do="use an encoder or a decoder, not both in one"
        ) from error
    features, cut = embed(encoder, examples, settings)
    head = linear.fit_head(ColumnBlocks([features]), examples, target, regression, weights)
    trainable = head.weight.size + head.bias.size
    total = sum(parameter.numel() for parameter in encoder.model.parameters()) + trainable
    notes = TrainingNotes(device=str(encoder.device)).with_cut(cut)
    return TrainResult(ProbePredictor(target, encoder, settings, head), total, trainable, notes)


def frozen(settings: Model, seed: int = 0, max_tokens: int | str = "auto") -> Encoder:
    """Return a pretrained encoder without a head, as it is."""
    tokenizer = pretrained.tokenizer(settings)
    body = pretrained.body(settings, tokenizer, seed)
    limit = pretrained.longest_input(settings, tokenizer)
    return Encoder(body, tokenizer, limit, max_tokens)


def embedder(name: str) -> Embed:
    """Return what embeds texts as `probe` does by default, with an encoder that is loaded when it is first used."""

    @cache
    def encoder() -> Encoder:
        with silence():  # model.max_length is that of another model
            return frozen(Model(name_or_path=name))

    def embed_texts(examples: Sequence[Example]) -> NDArray[np.float32]:
        with silence() if len(examples) == 1 else nullcontext():  # texts that are asked about come one by one
            return embed(encoder(), examples, Probe())[0].astype(np.float32)

    return embed_texts


def embed(encoder: Encoder, examples: Sequence[Example], settings: Probe) -> tuple[Floats, list[DataNote]]:
    """Return one embedding per example (examples x hidden size), and what `max_length` cut."""

    def read(output: Any, batch: Batch) -> torch.Tensor:
        return pooling.pool(output.last_hidden_state, batch, settings.pooling)

    features, cut = encoder.rows(examples, read, "embed")
    if settings.normalize:
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, cut
