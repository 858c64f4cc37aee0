"""How an exported folder is used, as code for its model card that runs in the folder."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from tunesmith.data.conversations import content_with_input
from tunesmith.errors import TunesmithError
from tunesmith.exporting.source import ExportSource
from tunesmith.protocols import ChatSpec
from tunesmith.tasks import postprocessing
from tunesmith.types import Example, Message

LIBRARIES = {
    "adapter": "peft",
    "onnx": "onnx",
    "onnx-int8": "onnx",
    "openvino": "openvino",
    "torch-export": "pytorch",
    "torchscript": "pytorch",
    "pth": "pytorch",
    "gguf": "gguf",
    "ollama": "gguf",
}
PROGRAMS = ("onnx", "onnx-int8", "openvino", "torch-export", "torchscript")


def usage(source: ExportSource, target: str, pairs: bool, folder: Path) -> str:
    """Return Markdown with the commands or the Python that use the folder. pairs: whether rows are pairs of texts."""
    chat = source.parts.chat
    # run.py asks one question without earlier turns, and other software cannot look for similar texts
    needs_tunesmith = chat is not None and (chat.shots.similar or (chat.shots.rows and target in PROGRAMS))
    if target in PROGRAMS and chat and not needs_tunesmith:
        turn = Message("user", "Name three primary colours.")
        if chat.question:
            (turn,) = chat.question.ask(Example("1", "Some text", "Another" if pairs else None))
        about = f" --input {shlex.quote(turn.input)}" if turn.input else ""
        return _block("sh", f"python run.py {shlex.quote(turn.content)}{about}\npython run.py --chat")
    if target in PROGRAMS and not needs_tunesmith:
        texts = "$'Some text\\tAnother'" if pairs else "'Some text' 'Another'"
        return _block("sh", f"python run.py {texts}")
    if target == "ollama":
        pipe = ""
        if pairs and chat and chat.question:  # the command reads a pair as training wrote it
            (turn,) = chat.question.ask(Example("1", "Some text", "Another"))
            pipe = "printf '{}' | ".format(turn.input.replace("\n", "\\n"))
        return _block("sh", f"ollama create my-model -f Modelfile\n{pipe}ollama run my-model")
    if target == "gguf":
        return _block("sh", "llama-cli -m model.gguf --jinja")
    if source.has_own_format or needs_tunesmith:
        kind, texts = type(source.predictor), '"Some text", "Another"' if pairs else '"Some text"'
        lines = [
            "from pathlib import Path\n",
            f"from {kind.__module__} import {kind.__name__}",
            "from tunesmith.types import Example",
            "",
            f'print({kind.__name__}.load(Path(".")).predict([Example("1", {texts})]))',
        ]
    elif chat:
        has_input = ".input" in (chat.chat_encoder.tokenizer.chat_template or "")
        messages = [
            {"role": turn.role, "content": turn.content, "input": turn.input}
            if has_input and turn.input
            else {"role": turn.role, "content": content_with_input(turn)}
            for turn in _turns(chat, pairs)
        ]
        lines = [
            *_pipeline(source, target, folder, "AutoModelForCausalLM", "text-generation", "ask"),
            "",
            f"messages = {json.dumps(messages, ensure_ascii=False)}",
            f"reply = ask(messages, max_new_tokens={source.generate.max_new_tokens}, do_sample=False)",
            'print(reply[0]["generated_text"][-1]["content"])',
        ]
        if target == "safetensors" and not chat.question:
            code, command = "\n".join(lines), _vllm(source)
            return f"{_block('python', code)}\n\nOr with vLLM:\n\n```sh\n{command}\n```"
    else:
        assert source.target is not None
        text = '{"text": "Some text", "text_pair": "Another"}' if pairs else '"Some text"'
        lines = [
            *_pipeline(source, target, folder, "AutoModelForSequenceClassification", "text-classification", "classify"),
            "",
            *postprocessing.pipeline_lines(source.target, text, has_config=target == "adapter"),
        ]
    return _block("python", "\n".join(lines))


def _turns(chat: ChatSpec, pairs: bool) -> list[Message]:
    turns = [Message("user", "Name three primary colours.")]
    if chat.question:
        turns = chat.question.ask(Example("1", "Some text", "Another" if pairs else None), chat.shots.rows)
        if chat.question.form == "each":  # yes or no follows a label
            turns.append(Message("assistant", f"{chat.question.texts[0]}:"))
    if chat.chat_encoder.system:
        turns.insert(0, Message("system", chat.chat_encoder.system))
    return turns


def _vllm(source: ExportSource) -> str:
    """Return the command that serves the folder as the run generates: vLLM samples unless it is told not to."""
    greedy = "" if source.generate.do_sample else """ --override-generation-config '{"temperature": 0}'"""
    return f"vllm serve . --max-model-len {source.parts.max_length}{greedy}"


def library(source: ExportSource, target: str) -> str:
    """Return what model hubs call the library that reads the folder."""
    if source.has_own_format and target == "safetensors":
        return "tunesmith"
    return LIBRARIES.get(target, "transformers")


def _block(language: str, code: str) -> str:
    return f"In this folder:\n\n```{language}\n{code}\n```"


def _pipeline(source: ExportSource, target: str, folder: Path, auto: str, task: str, name: str) -> list[str]:
    """Return lines that make a pipeline. auto: the class that loads the model. name: of the pipeline."""
    if target == "safetensors":
        return ["from transformers import pipeline", "", f'{name} = pipeline("{task}", model=".")']
    made = f'{name} = pipeline("{task}", model=model.eval(), tokenizer=AutoTokenizer.from_pretrained("."))'
    if target == "pth":
        (file,) = folder.glob("*.pth")
        return [
            "import torch",
            f"from transformers import AutoConfig, {auto}, AutoTokenizer, pipeline",
            "",
            f'model = {auto}.from_config(AutoConfig.from_pretrained("."))',
            f"model.load_state_dict(torch.load({json.dumps(file.name, ensure_ascii=False)}, weights_only=True))",
            made,
        ]
    if target == "adapter":
        base = json.dumps(source.parts.model.peft_config["default"].base_model_name_or_path)
        return [
            "from peft import PeftModel",
            f"from transformers import AutoConfig, {auto}, AutoTokenizer, pipeline",
            "",
            'config = AutoConfig.from_pretrained("base_config.json")',
            f"base = {auto}.from_pretrained({base}, config=config)",
            'model = PeftModel.from_pretrained(base, ".")',
            made,
        ]
    raise TunesmithError(f"there is no usage for {target}")
