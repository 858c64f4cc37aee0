"""How an exported folder is used, in code that runs in it: for its model card."""

from __future__ import annotations

import json

from tunesmith.data.conversations import content_with_input
from tunesmith.errors import TunesmithError
from tunesmith.exporting.source import ExportSource
from tunesmith.protocols import ChatSpec
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
    """Return Markdown with the commands or the Python that use the folder. pairs: whether rows are pairs of texts."""
    if target in PROGRAMS:
        texts = "$'Some text\\tAnother'" if pairs else "'Some text' 'Another'"
        return _block("sh", f"python run.py {texts}")
    if target == "ollama":
        question = trained.parts.chat.question if trained.parts.chat and pairs else None
        pipe = ""
        if question:  # a pair as training wrote it, for the command to read
            (turn,) = question.ask(Example("1", "Some text", "Another"))
            pipe = "printf '{}' | ".format(turn.input.replace("\n", "\\n"))
        return _block("sh", f"ollama create my-model -f Modelfile\n{pipe}ollama run my-model")
    if target == "gguf":
        return _block("sh", "llama-cli -m model.gguf --jinja")
    if trained.has_own_format:
        kind = type(trained.predictor)
        lines = [
            "from pathlib import Path",
            "",
            f"from {kind.__module__} import {kind.__name__}",
            "from tunesmith.types import Example",
            "",
            f'print({kind.__name__}.load(Path(".")).predict([Example("1", "Some text")]))',
        ]
    elif trained.parts.chat:
        lines = _chatting(trained, trained.parts.chat, target, pairs)
    else:
        auto = "AutoModelForSequenceClassification"
        lines = _loaded(trained, target, auto, "text-classification", "classify")
        lines += ["", PAIR if pairs else LABEL]
    return _block("python", "\n".join(lines))


def made_for(trained: ExportSource, target: str) -> str:
    """Return what a model hub calls the library that reads the folder."""
    if trained.has_own_format and target == "safetensors":
        return "tunesmith"
    return LIBRARIES.get(target, "transformers")


def _block(language: str, code: str) -> str:
    return f"In this folder:\n\n```{language}\n{code}\n```"


def _chatting(trained: ExportSource, chat: ChatSpec, target: str, pairs: bool) -> list[str]:
    turns = [Message("user", "Name three primary colours.")]
    if chat.question:
        turns = chat.question.ask(Example("1", "Some text", "Another" if pairs else None))
    if chat.chat_encoder.system:
        turns = [Message("system", chat.chat_encoder.system), *turns]
    keeps_input = ".input" in (chat.chat_encoder.tokenizer.chat_template or "")
    messages = [
        {"role": turn.role, "content": turn.content, "input": turn.input}
        if keeps_input and turn.input
        else {"role": turn.role, "content": content_with_input(turn)}
        for turn in turns
    ]
    return [
        *_loaded(trained, target, "AutoModelForCausalLM", "text-generation", "ask"),
        "",
        f"messages = {json.dumps(messages, ensure_ascii=False)}",
        f"found = ask(messages, max_new_tokens={trained.generate.max_new_tokens}, do_sample=False)",
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
        base = json.dumps(trained.parts.model.peft_config["default"].base_model_name_or_path)
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
