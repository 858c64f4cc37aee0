"""How an exported folder is used, in code that runs in it: for its model card."""

from __future__ import annotations

import json
from typing import Any

from tunesmith.errors import TunesmithError
from tunesmith.exporting.source import ExportSource
from tunesmith.types import Example, Message

LABEL = 'print(classify("Some text", truncation=True, top_k=None))'
PAIR = 'print(classify({"text": "Some text", "text_pair": "Another"}, truncation=True, top_k=None))'
LIBRARIES = {
    "adapter": "peft",
    "onnx": "onnx",
    "onnx-int8": "onnx",
    "torch-export": "pytorch",
    "torchscript": "pytorch",
    "pth": "pytorch",
    "gguf": "gguf",
    "ollama": "gguf",
}
PROGRAMS = ("onnx", "onnx-int8", "torch-export", "torchscript")


def usage(trained: ExportSource, target: str, pairs: bool) -> str:
    """Markdown: the commands or the Python that use the folder. pairs: the run was trained on pairs of texts."""
    if target in PROGRAMS:
        texts = "$'Some text\\tAnother'" if pairs else "'Some text' 'Another'"
        return _block("sh", f"python run.py {texts}")
    if target == "ollama":
        given = _piped(trained) if pairs else ""
        return _block("sh", f"ollama create my-model -f Modelfile\n{given}ollama run my-model")
    if target == "gguf":
        return _block("sh", "llama-cli -m model.gguf --jinja")
    if trained.method in ("linear", "probe"):
        return _block("python", _own(trained))
    kind = _talking if trained.talk else _classifying
    return _block("python", "\n".join(kind(trained, target, pairs)))


def made_for(trained: ExportSource, target: str) -> str:
    """What a model hub calls the library that reads the folder."""
    if trained.method in ("linear", "probe") and target == "safetensors":
        return "tunesmith"
    return LIBRARIES.get(target, "transformers")


def _block(language: str, code: str) -> str:
    return f"In this folder:\n\n```{language}\n{code}\n```"


def _piped(trained: ExportSource) -> str:
    """A pair as training wrote it, for a command to read."""
    talk: Any = trained.talk
    (turn,) = talk.question.ask(Example("1", "Some text", "Another"))
    return "printf '{}' | ".format(turn.input.replace("\n", "\\n"))


def _own(trained: ExportSource) -> str:
    module, name = {
        "linear": ("tunesmith.models.linear", "LinearClassifier"),
        "probe": ("tunesmith.prediction.classify", "ProbeClassifier"),
    }[trained.method]
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            f"from {module} import {name}",
            "from tunesmith.types import Example",
            "",
            f'print({name}.load(Path(".")).predict([Example("1", "Some text")]))',
        ]
    )


def _classifying(trained: ExportSource, target: str, pairs: bool) -> list[str]:
    auto = "AutoModelForSequenceClassification"
    return [*_loaded(trained, target, auto, "text-classification", "classify"), "", PAIR if pairs else LABEL]


def _talking(trained: ExportSource, target: str, pairs: bool) -> list[str]:
    talk: Any = trained.talk
    turns = [Message("user", "Name three primary colours.")]
    if talk.question:
        turns = talk.question.ask(Example("1", "Some text", "Another" if pairs else None))
    if talk.prompter.system:
        turns = [Message("system", talk.prompter.system), *turns]
    keeps = ".input" in (talk.prompter.tokenizer.chat_template or "")
    messages = [
        {"role": one.role, "content": one.content, "input": one.input}
        if keeps and one.input
        else {"role": one.role, "content": content_with_input(one)}
        for one in turns
    ]
    return [
        *_loaded(trained, target, "AutoModelForCausalLM", "text-generation", "ask"),
        "",
        f"messages = {json.dumps(messages, ensure_ascii=False)}",
        f"found = ask(messages, max_new_tokens={talk.generate.max_new_tokens}, do_sample=False)",
        'print(found[0]["generated_text"][-1]["content"])',
    ]


def _loaded(trained: ExportSource, target: str, auto: str, task: str, name: str) -> list[str]:
    """Lines that end with a pipeline of the given name."""
    if target == "safetensors":
        return ["from transformers import pipeline", "", f'{name} = pipeline("{task}", model=".")']
    made = f'{name} = pipeline("{task}", model=model.eval(), tokenizer=AutoTokenizer.from_pretrained("."))'
    if target == "pth":
        return [
            "import torch",
            f"from transformers import AutoConfig, {auto}, AutoTokenizer, pipeline",
            "",
            f'model = {auto}.from_config(AutoConfig.from_pretrained("."))',
            'model.load_state_dict(torch.load("model.pth", weights_only=True))',
            made,
        ]
    if target == "adapter":
        base = json.dumps(trained.model.peft_config["default"].base_model_name_or_path)
        return [
            "from peft import PeftModel",
            f"from transformers import AutoConfig, {auto}, AutoTokenizer, pipeline",
            "",
            'config = AutoConfig.from_pretrained(".")',
            f"base = {auto}.from_pretrained({base}, config=config)",
            'model = PeftModel.from_pretrained(base, ".")',
            made,
        ]
    raise TunesmithError(f"there is no usage for {target}")
