"""Hostile templates and models: whatever a recipe, a tokenizer or a weight file holds, none of it is run, and all of it
ends soon. Code that does run would write a canary."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests import tiny
from tests.campaigns.campaign import Campaign, Outcome, execute, prepare
from tests.tiny_generators import CHAT

CANARY = "canary"
TEXT = "{% for m in messages %}{{ m.role + ': ' + m.content }}<eos>\n{% endfor %}"
GROWTH = [
    "{{ 'a' * 10**<n> }}",
    "{{ ['a'] * 10**<n> }}",
    "{{ (('a' * 10**4) ~ 'b').replace('a', 'c' * 10**<n>) }}",
    "{{ 'a'.center(10**<n>) }}{{ 'a' | indent(10**<n>) }}",
    "{{ '%<n>0000000d' % 1 }}",
    "{{ '{:<n>0000000}'.format(1) }}",
    "{% for a in range(<n>000) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(<n>000) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ range(10**<n>) | list }}",
    "{% macro f(k) %}{% if k %}{{ f(k - 1) }}{{ f(k - 1) }}{% endif %}{% endmacro %}{{ f(<n>0) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set s = namespace(x='ab') %}{% for i in range(<n>0) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
    "{% set s = namespace(x=['a']) %}{% for i in range(<n>0) %}{% set s.x = [s.x, s.x] %}{% endfor %}{{ s.x }}",
    "{{ range(99999) | map('string') | join('a' * 10**<n>) }}",
    "{{ (10 ** <n>) ** (10 ** <n>) }}",
    "{{ ([0] * 99999) | tojson(indent=10**<n>) }}",
]
"""Templates that ask for about 10**<n> characters or steps."""
REACHING = [
    "{{ ''.__class__.__mro__[1].__subclasses__()[<n>]('touch <canary>', shell=True) }}",
    "{{ raise_exception.__globals__['__builtins__']['open']('<canary>', 'w').write('<n>') }}",
    "{{ namespace.__init__.__globals__.os.system('touch <canary>') }}",
    "{{ cycler.__init__.__globals__.os.popen('touch <canary>').read() }}",
    "{{ self._TemplateReference__context.environment.from_string('{{ 1 }}').module }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ (messages | attr('__class__')) | string }}",
    "{{ messages.append(<n>) }}{{ messages.clear() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch <canary>') }}",
    "{{ strftime_now('%Y') | attr('__class__') }}{{ dict.__base__ }}",
]
"""Templates that look for a way out of the sandbox."""
ODD = [
    "",
    "{{ raise_exception('no <n>') }}",
    "{{ messages[<n>].content }}",
    "{{ messages[0].nothing.at.all }}",
    "{{ strftime_now('%f') }}" + TEXT,
    "{{ [1, 2] | random }}" + TEXT,
    "{% for m in messages %}",
    "{{ " + "(" * 900 + "1" + ")" * 900 + " }}",
    "{{ 1" + " + 1" * 9000 + " }}",
    "{% if 1 %}" * 900 + "{% endif %}" * 900,
    "a" * 200_000,
    "{{ messages | tojson * <n> }}\x00\ud83d\x1b[31m",
]
"""Templates that raise, say nothing, change from call to call, or are not templates at all."""


class Touch:
    """Pickled, it is a call of `touch`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


class Templates(Campaign):
    """A hostile template, or a hostile model, at each of the places where one can stand."""

    name = "templates"
    size = 160
    sample = 3

    def prepare(self, folder: Path) -> None:
        self.shared = folder
        pickle.loads(pickle.dumps(Touch(folder / CANARY)))
        assert (folder / CANARY).exists(), "the payload does nothing, so that no attempt could fail"
        tiny.generator("llama", folder / "llama")
        tiny.model("bert", folder / "bert")
        rows = [
            {"instruction": f"About {text}?", "output": label, "text": text, "label": label}
            for text, label in tiny.texts(40)
        ]
        (folder / "rows.json").write_text(json.dumps(rows))
        settings = ["task=instruction", "data.path=rows.json", "model.name_or_path=llama", "prompt.template=plain"]
        for name, more in (("full", []), ("lora", ["adapter.kind=lora"])):
            words = [*settings, "max_steps=1", "num_samples=1", "max_responses=1", "max_new_tokens=2", *more]
            prepare("train", *words, f"--run-dir={name}", folder=folder)

    def attempt(self, number: int, folder: Path) -> Outcome:
        places = [
            self._recipe,
            self._run,
            self._base,
            self._rubric,
            self._gguf,
            self._pickle,
            self._code,
            self._adapter,
        ]
        words, environment = places[number % len(places)](self.random(number), folder)
        result = execute(*words, folder=folder, environment=environment)
        if list(folder.rglob(CANARY)):
            return Outcome("silent", f"code ran: tunesmith {' '.join(words)}")
        return result.outcome

    def _template(self, random: random.Random, folder: Path) -> str:
        source = random.choice(random.choice([GROWTH, REACHING, ODD]))
        hostile = source.replace("<n>", random.choice(["2", "6", "8", "10"])).replace("<canary>", f"{folder / CANARY}")
        where = random.random()
        if where < 0.3:  # not in the first conversations
            hostile = "{% if 'coach' in messages[0].content %}" + hostile + "{% endif %}"
        return hostile if where > 0.8 else random.choice([TEXT + hostile, hostile + TEXT])

    def _settings(self, model: Path | str, *more: str) -> list[str]:
        return [f"data.path={self.shared / 'rows.json'}", f"model.name_or_path={model}", *more]

    def _recipe(self, random: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
        path = folder / "own.jinja"
        path.write_text(self._template(random, folder), "utf-8", errors="surrogatepass")
        return ["check", "task=instruction", *self._settings(self.shared / "llama", f"prompt.template={path}")], {}

    def _run(self, random: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
        shutil.copytree(self.shared / "full", folder / "run")
        (folder / "run/model/chat_template.jinja").write_text(self._template(random, folder), errors="replace")
        return ["predict", "run", "--text", "the coach", *random.choice([[], ["--no-verify"], ["--no-verify"]])], {}

    def _base(self, random: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
        model = folder / "base"
        shutil.copytree(self.shared / "llama", model)
        template = self._template(random, folder)
        config = json.loads((model / "tokenizer_config.json").read_text())
        if random.random() < 0.5:
            (model / "chat_template.jinja").write_text(template, errors="replace")
        else:
            several = [{"name": "default", "template": template}, {"name": "rag", "template": CHAT}]
            config["chat_template"] = random.choice([template, template, several, {"default": template}, 7, []])
            (model / "tokenizer_config.json").write_text(json.dumps(config))
        return ["check", "task=instruction", *self._settings(model, "prompt.template=chat")], {}

    def _rubric(self, random: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
        rows = [{"instruction": f"What is {n}?", "output": "a", "response": "the coach"} for n in range(8)]
        (folder / "said.json").write_text(json.dumps(rows))
        template = self._template(random, folder).replace(TEXT, "{{ instruction }} {{ response }}")
        template = template.replace("messages[0].content", "instruction").replace("messages", "response")
        (folder / "rubric.jinja").write_text(template, errors="replace")
        more = random.choice([[], ["judge.verbatim=true"]])
        words = ["judge", "said.json", "judge.rubric=rubric.jinja", "judge.max_retries=0", "judge.timeout=1", *more]
        words += ["--url=http://127.0.0.1:9/v1", "--model=none"]
        return words, {}

    def _gguf(self, random: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Metadata of lengths, types and templates that do not fit."""
        from gguf import GGUFWriter

        path = folder / "model.gguf"
        writer = GGUFWriter(str(path), random.choice(["llama", "gpt2", "../../x", ""]))
        writer.add_chat_template(self._template(random, folder).encode("utf-8", "replace").decode())
        for name in ("block_count", "embedding_length", "context_length", "attention.head_count"):
            writer.add_uint32(f"llama.{name}", random.choice([0, 1, 32, 2**31 - 1]))
        writer.add_tokenizer_model(random.choice(["gpt2", "llama", "x"]))
        writer.add_token_list(["a"] * random.choice([1, 300]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        content = bytearray(path.read_bytes())
        for _ in range(random.choice([0, 1, 4])):
            content[random.randrange(4, len(content))] = random.choice([0, 1, 127, 255])
        path.write_bytes(content[: random.choice([len(content), len(content), random.randrange(len(content))])])
        return ["train", "task=instruction", *self._settings(path, "max_steps=1"), "--run-dir=out"], {}

    def _pickle(self, random: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Weights that are a program, with and without the permission to read pickled ones."""
        import torch

        environment = random.choice([{}, {"TUNESMITH_ALLOW_PICKLE": "1"}])
        payload = random.choice([Touch(folder / CANARY), {"weight": Touch(folder / CANARY)}, [Touch(folder / CANARY)]])
        kind = random.choice(["pth", "bin", "beside", "adapter"])
        if kind == "pth":
            torch.save(payload, folder / "own.pth")
            more = [
                "model.from_config={model_type: gpt2, n_layer: 1, n_embd: 8, n_head: 1}",
                "model.state_dict=own.pth",
            ]
            more += [f"model.tokenizer={self.shared / 'llama'}", "task=instruction", "max_steps=1"]
            return ["train", f"data.path={self.shared / 'rows.json'}", *more, "--run-dir=out"], environment
        if kind == "adapter":
            shutil.copytree(self.shared / "lora", folder / "run")
            (folder / "run/model/adapter_model.safetensors").unlink()
            torch.save(payload, folder / "run/model/adapter_model.bin")
            command = random.choice([["predict", "run", "--text=a"], ["merge", "run", "--output=merged"]])
            return [*command, "--no-verify"], environment
        model = folder / "base"
        shutil.copytree(self.shared / "bert", model)
        if kind == "bin":
            (model / "model.safetensors").unlink()
        beside = random.choice(["pytorch_model.bin", "training_args.bin", "optimizer.pt"])
        torch.save(payload, model / ("pytorch_model.bin" if kind == "bin" else beside))
        return ["train", "method=encoder", *self._settings(model, "max_steps=1"), "--run-dir=out"], environment

    def _code(self, random: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
        """A model that wants its own Python files."""
        model = folder / "base"
        shutil.copytree(self.shared / "bert", model)
        (model / "evil.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\nclass Evil: pass\n")
        name = random.choice(["config.json", "tokenizer_config.json"])
        content = json.loads((model / name).read_text())
        classes = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification", "AutoTokenizer")
        content["auto_map"] = {
            item: random.choice(["evil.Evil", "../base--evil.Evil", "x/y--evil.Evil"]) for item in classes
        }
        if random.random() < 0.5:
            content |= {"model_type": "evil"} if name == "config.json" else {"tokenizer_class": "Evil"}
        (model / name).write_text(json.dumps(content))
        (folder / "evil.py").write_text((model / "evil.py").read_text())
        more = random.choice([[], ["model.attn_implementation=evil/kernel"], ["model.trust_remote_code=false"]])
        return ["train", "method=encoder", *self._settings(model, "max_steps=1", *more), "--run-dir=out"], {}

    def _adapter(self, random: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
        """An adapter whose base lies elsewhere."""
        shutil.copytree(self.shared / "lora", folder / "run")
        path = folder / "run/model/adapter_config.json"
        content = json.loads(path.read_text())
        elsewhere = [
            "../../../etc",
            "/etc",
            "http://127.0.0.1:9/model",
            "https://example.org/x/y",
            "a" * 5000,
            "\x00",
            [1],
            None,
        ]
        content["base_model_name_or_path"] = random.choice(elsewhere)
        if random.random() < 0.5:
            content["auto_mapping"] = {"base_model_class": "Evil", "parent_library": "evil"}
            (folder / "evil.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\n")
        path.write_text(json.dumps(content))
        for other in ("base_config.json", "config.json"):
            if random.random() < 0.5:
                (folder / "run/model" / other).unlink(missing_ok=True)
        command = random.choice([["predict", "run", "--text=a"], ["merge", "run", "--output=merged"]])
        return [*command, "--no-verify"], {}
