"""A causal language model as one graph with a key-value cache, which reads prompts and goes on token by token.

The exporters of transformers write it. Inputs and outputs have the names that Optimum gave them, which other software
for such graphs knows.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.exporters import DynamoConfig, ExportedModel, HfExporter

from tunesmith import disk
from tunesmith.errors import RunError
from tunesmith.exporting import network, weights
from tunesmith.exporting.source import Exported, ExportSource
from tunesmith.models import generation_cache
from tunesmith.models.graphs import SCRIPTED, GraphModel, empty_cache
from tunesmith.protocols import Exportable, Logits, PromptWithAnswer, TextGenerator

CACHED, NEW = 5, 3
"""Tokens in the cache and behind it of the inputs that a graph is traced with."""
SETTINGS = {"max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty"}
"""Of a recipe's generation, those that run.py knows."""

INDENT = 8 * " "
"""Of a method's lines in run.py."""


@dataclass(frozen=True)
class RunLines:
    """The lines of run.py that are different without ONNX Runtime."""

    package: str
    """What runs the graph."""
    imports: str
    """The lines that import it."""
    open: str
    """Those that set `self.graph` and `self.cache`, with `{layers}`, `{heads}` and `{size}` of the cache."""
    call: str
    """Those that compute `logits` and the list `longer`, the new cache."""


class Decoder(nn.Module):
    """A model whose cache is plain tensors."""

    def __init__(self, source: ExportSource) -> None:
        super().__init__()
        self.model = copy.deepcopy(weights.merged(source)).cpu().float().eval()
        self.model.set_attn_implementation("sdpa")
        self.config = self.model.config

    def forward(self, past_key_values: dict[str, torch.Tensor], **inputs: torch.Tensor) -> dict[str, Any]:
        flat = list(past_key_values.values())
        cache = DynamicCache(list(zip(flat[::2], flat[1::2], strict=True)))
        output = self.model(**inputs, past_key_values=cache, use_cache=True)
        return {"logits": output.logits, "present": _named(output.past_key_values)}

    def example(self) -> dict[str, Any]:
        """Return inputs to trace with: two rows, one of them padded."""
        ids_2T = torch.arange(2 * (CACHED + NEW)).reshape(2, -1) % self.config.vocab_size
        mask_2T = torch.ones_like(ids_2T)
        mask_2T[1, :2] = 0
        places_2T = (mask_2T.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            past = self.model(input_ids=ids_2T[:, :CACHED], use_cache=True).past_key_values
        return {
            "input_ids": ids_2T[:, CACHED:].contiguous(),
            "attention_mask": mask_2T,
            "position_ids": places_2T[:, CACHED:].contiguous(),
            "logits_to_keep": torch.arange(1, NEW),
            "past_key_values": _named(past),
        }


def _named(cache: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a cache by the names that they have in a graph."""
    return {
        f"{number}.{name}": tensor
        for number, layer in enumerate(cache.layers)
        for name, tensor in (("key", layer.keys), ("value", layer.values))
    }


def check(source: ExportSource, target: str) -> None:
    """Raise RunError for a precision that no graph has, and for a slow tokenizer."""
    source.require_precision(target, "float32")
    if not getattr(source.parts.tokenizer, "is_fast", False):
        raise RunError("a graph needs a fast tokenizer", found="a slow one, in Python", do="export --to safetensors")


def export(source: ExportSource, target: str, exporter: type[HfExporter], config: DynamoConfig) -> ExportedModel:
    """Return the graph, with dynamic batch and lengths, as an exporter of transformers writes it."""
    check(source, target)
    dynamic = torch.export.Dim.DYNAMIC
    with network.tracing(target):
        decoder = Decoder(source)
        inputs = decoder.example()
        config.dynamic_shapes = {name: {0: dynamic, 1: dynamic} for name in inputs} | {
            "logits_to_keep": {0: dynamic},
            "past_key_values": {name: {0: dynamic, 2: dynamic} for name in inputs["past_key_values"]},
        }
        return exporter().export(decoder, inputs, config)


def write_scripted(source: ExportSource, folder: Path) -> None:
    """Write the graph as TorchScript, which has the cache as a flat list."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = Decoder(source)

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            past = dict(zip(cache, tensors[len(inputs) :], strict=True))
            output = self.decoder(past, **dict(zip(inputs, tensors, strict=False)))
            return output["logits"], *output["present"].values()

    with network.tracing("torchscript"):
        flat = Flat()
        inputs = flat.decoder.example()
        cache = inputs.pop("past_key_values")
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            flat, (*inputs.values(), *cache.values()), check_trace=False
        )
        with disk.deferring(folder / SCRIPTED) as file:
            torch.jit.save(traced, file)
        flat.decoder.config.save_pretrained(folder)


def read_back(
    source: ExportSource, folder: Path, engine: str, lines: RunLines | None = None, exact: bool = True
) -> Exported:
    """Write tokenizer, settings and run.py beside a graph, and return the run's predictor around it.

    lines: None for ONNX Runtime's own. exact: whether nothing was rounded.
    """
    model = GraphModel.load(folder)
    predictor = source.predictor.with_model(model)
    predictor.save(folder)
    if source.parts.chat and source.parts.chat.chat_encoder.shots:  # which run.py reads from the template alone
        template = source.parts.chat.chat_encoder.portable_template
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write_generation_config(source, predictor, folder)
    (folder / "run.py").write_text(_run_py(model.config, lines), encoding="utf-8")

    def alone(rows: Sequence[PromptWithAnswer]) -> list[Logits]:
        return [logits for row in rows for logits in step_by_step(model, [row])]

    def together(rows: Sequence[PromptWithAnswer]) -> list[Logits]:
        return step_by_step(model, rows)

    generator = predictor if isinstance(predictor, TextGenerator) else None
    others = {"decode": alone, "batch": together}
    return Exported(predictor.logits, engine, exact, others=others, generator=generator)


def step_by_step(model: GraphModel, rows: Sequence[PromptWithAnswer]) -> list[Logits]:
    """Return T x V for the T tokens of each answer, each token read by itself behind the prompts."""
    answers = [row.ids[row.start :] for row in rows]
    with torch.inference_mode():
        cache = generation_cache.of(model, len(rows))
        logits = [
            cache.start([row.ids[: row.start] for row in rows]),
            *(
                cache.advance([ids[min(step, len(ids) - 1)] for ids in answers])  # what has ended goes on with anything
                for step in range(max(map(len, answers)) - 1)
            ),
        ]
    logits_BTV = torch.stack(logits, dim=1).float().numpy()
    return [logits_TV[: len(ids)] for logits_TV, ids in zip(logits_BTV, answers, strict=True)]


def _run_py(config: Any, lines: RunLines | None) -> str:
    text = Path(__file__).with_name("run_generator.py").read_text(encoding="utf-8")
    if lines is None:
        return text
    empty = empty_cache(config, 1)
    _, heads, _, size = empty["0.key"].shape
    before, _, rest = text.partition("        self.graph = ")
    _, ids, rest = rest.partition("        self.ids: ")
    opened = lines.open.replace("{layers}", str(len(empty) // 2)).replace("{heads}", str(heads))
    text = before + indent(opened.replace("{size}", str(size)), INDENT) + "\n" + ids + rest
    called = INDENT + "logits, *longer = self.graph.run(None, inputs | self.cache)"
    text = text.replace(called, indent(lines.call, INDENT)).replace("import onnxruntime", lines.imports)
    return text.replace("onnxruntime", lines.package)


def _write_generation_config(source: ExportSource, predictor: Exportable, folder: Path) -> None:
    """Write generation_config.json, from which run.py reads how the recipe generates and what ends an answer."""
    vocabulary = source.parts.tokenizer.get_vocab()
    stops = source.parts.chat.stops if source.parts.chat else []
    content = {
        "max_length": source.parts.max_length,
        **source.generate.model_dump(include=SETTINGS),
        "eos_token_id": [vocabulary[text] for text in stops if text in vocabulary],
        "stop_strings": [text for text in stops if text not in vocabulary],
    }
    if isinstance(predictor, TextGenerator):
        content["max_new_tokens"] = predictor.max_answer_tokens(source.generate)
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (folder / "generation_config.json").write_text(text + "\n", encoding="utf-8")
