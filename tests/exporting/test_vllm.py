"""A safetensors folder for other servers: plain transformers renders the prompts of training from it, as vLLM does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests import tiny_generators
from tunesmith.data.prompts import TEMPLATES, ChatEncoder
from tunesmith.exporting import usage, weights
from tunesmith.prediction.generate import Generator
from tunesmith.recipe import Generate, Prompt
from tunesmith.types import Message

CUSTOM = """
  {% for message in messages -%}
    {% if message.role == 'system' %}[{{ message.content }}] {% endif %}
    {% if message.role == 'user' %}Q: {{ message.content }}{{ ' | ' + message.input if message.input }}
    {% elif message.role == 'assistant' %}A: {{ message.content }}{{ eos_token }}
    {% endif %}
  {%- endfor %}
{{ 'A: ' if add_generation_prompt }}"""
ODD = 'Say "ja"\n\tor {{ no }} %} {# \\ ünïcode 🙂'
QUESTION, ABOUT = Message("user", "Why?"), Message("user", "Fix the sentence.", "He go.")
TALKS = [
    [QUESTION],
    [ABOUT],
    [Message("system", "Be brief."), ABOUT],
    [QUESTION, Message("assistant", "So."), ABOUT],
    [Message("system", "Be brief."), ABOUT, Message("assistant", "He goes."), QUESTION],
]


def folder(template: str, system: str | None, path: Path, settings: Generate | None = None) -> tuple[Generator, Path]:
    """A generator with a prompt template, and its export."""
    if template == "custom":
        template = str(path / "custom.jinja")
        Path(template).write_text(CUSTOM)
    generator = tiny_generators.generator(num_hidden_layers=1)
    words = tiny_generators.byte_tokenizer()
    words.chat_template = tiny_generators.CHAT
    generator = replace(generator, chat_encoder=ChatEncoder.of(Prompt(template=template, system=system), words))
    weights.safetensors(tiny_generators.export_source(generator, settings or Generate()), path / "out")
    return generator, path / "out"


def openai(turn: Message, apart: bool) -> dict[str, str]:
    """A message as clients send it. apart: whether the template has a place for the input."""
    if turn.input and not apart:
        return {"role": turn.role, "content": f"{turn.content}\n\n{turn.input}"}
    return {"role": turn.role, "content": turn.content} | ({"input": turn.input} if turn.input else {})


@pytest.mark.parametrize("template", [*TEMPLATES, "chat", "custom"])
@pytest.mark.parametrize("system", [None, "Be kind.", ODD])
def test_the_template_in_the_folder_renders_the_prompts_of_training(
    template: str, system: str | None, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    generator, out = folder(template, system, tmp_path)
    encoder, other = generator.chat_encoder, AutoTokenizer.from_pretrained(out)
    for talk in TALKS:
        plain = [openai(turn, apart=template not in ("chat", "human-assistant", "plain")) for turn in talk]
        (ids,) = encoder.encode_prompts([talk])
        assert other.apply_chat_template(plain, add_generation_prompt=True)["input_ids"] == ids
        whole = [*talk, Message("assistant", "Because.")]
        ((ids, labels),) = encoder.encode([whole])
        plain.append({"role": "assistant", "content": "Because."})
        trained = other.apply_chat_template(plain, add_generation_prompt=False)["input_ids"]
        assert trained[: len(ids)] == ids
        assert other.decode(trained[len(ids) :]).strip() == ""
        assert labels[-1] == ids[-1]
    prompt = encoder.rendered_prompt([QUESTION])
    assert (system is not None and system in prompt) == (system is not None)
    again = Generator.load(out)  # which adds the system message only once
    assert again.chat_encoder.encode_prompts([[QUESTION]]) == encoder.encode_prompts([[QUESTION]])


def test_generation_defaults_are_where_servers_look(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    (tmp_path / "greedy").mkdir()
    generator, out = folder("chat", None, tmp_path / "greedy", Generate(max_new_tokens=9, repetition_penalty=1.2))
    config = GenerationConfig.from_pretrained(out)
    words = AutoTokenizer.from_pretrained(out)
    assert generator.chat_encoder.tokenizer.convert_ids_to_tokens(config.eos_token_id) == generator.stops
    assert set(generator.stops) == {"[SEP]", "<|im_start|>"}
    said = config.to_diff_dict()  # what vLLM reads
    assert (said["max_new_tokens"], said["repetition_penalty"]) == (9, 1.2)
    assert {"do_sample", "temperature", "top_p", "top_k", "min_p"}.isdisjoint(said)
    model = AutoModelForCausalLM.from_pretrained(out)
    turns = [{"role": "user", "content": "Why?"}]
    inputs = words.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    (ours,) = generator.respond(["1"], [[QUESTION]], Generate(max_new_tokens=9, repetition_penalty=1.2), 0)
    assert words.decode(answer, skip_special_tokens=True).strip() == ours.text
    model.save_pretrained(tmp_path / "again")  # transformers refuses settings that contradict each other

    (tmp_path / "sampled").mkdir()
    settings = Generate(do_sample=True, temperature=0.7, top_p=0.9, top_k=20)
    _, out = folder("alpaca", None, tmp_path / "sampled", settings)
    said = GenerationConfig.from_pretrained(out).to_diff_dict()
    assert (said["do_sample"], said["temperature"], said["top_p"], said["top_k"]) == (True, 0.7, 0.9, 20)


def test_the_card_serves_as_the_run_generates(tmp_path: Path) -> None:
    generator = tiny_generators.generator(num_hidden_layers=1)
    greedy = usage.usage(tiny_generators.export_source(generator, Generate()), "safetensors", False, tmp_path)
    assert """vllm serve . --max-model-len 500 --override-generation-config '{"temperature": 0}'\n""" in greedy
    sampled = usage.usage(
        tiny_generators.export_source(generator, Generate(do_sample=True)), "safetensors", False, tmp_path
    )
    assert "vllm serve . --max-model-len 500\n" in sampled
