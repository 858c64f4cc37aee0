"""Ask the language model in this folder: python run.py "Name three colours.", or python run.py --chat

A language model reads tokens, which are pieces of text, and scores every token of its vocabulary as the next one. To
read a token is to compute a key and a value of it in every layer, which all later tokens look at. These never change,
so they are kept, in the key-value cache: the prompt is read at once, and then each new token by itself.
Needs onnxruntime, tokenizers, numpy and jinja2.
"""

import argparse
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

FOLDER = Path(__file__).parent


class CachedModel:
    """The graph, and the cache of the tokens that it has read."""

    def __init__(self) -> None:
        self.graph = onnxruntime.InferenceSession(FOLDER / "model.onnx")
        shapes = {entry.name: entry.shape for entry in self.graph.get_inputs() if "past_key_values" in entry.name}
        self.cache = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items()}
        self.ids: list[int] = []

    def read(self, ids: list[int]) -> Any:
        """Read tokens behind those in the cache, and return the scores of the next token."""
        start, end = len(self.ids), len(self.ids) + len(ids)
        inputs = {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, end), np.int64),  # in a batch, zeros hide what pads the shorter prompts
            "position_ids": np.arange(start, end)[None],
            "logits_to_keep": np.array([len(ids) - 1]),  # only what follows the last token is asked for
        }
        logits, *longer = self.graph.run(None, inputs | self.cache)
        self.cache, self.ids = dict(zip(self.cache, longer, strict=True)), self.ids + ids
        return logits[0, -1].astype(np.float64)


class Chat:
    """A conversation in the model's template. The cache is kept from turn to turn."""

    def __init__(self, settings: Any) -> None:
        self.settings, self.network, self.text = settings, CachedModel(), ""
        self.tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
        self.tokenizer.no_truncation()
        system = json.loads((FOLDER / "prompt.json").read_bytes())["system"]
        self.messages: list[Any] = [{"role": "system", "content": system}] if system is not None else []
        self.special = json.loads((FOLDER / "tokenizer_config.json").read_bytes())  # eos_token and others
        source = (FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
        options: Any = {"trim_blocks": True, "lstrip_blocks": True, "extensions": ["jinja2.ext.loopcontrols"]}
        self.template, self.has_input = ImmutableSandboxedEnvironment(**options).from_string(source), ".input" in source

    def ask(self, question: str, about: str | None = None) -> Iterator[str]:
        """Yield the answer in pieces. about: the text that an instruction is about."""
        settings, stops = self.settings, self.settings.stop_strings
        content = question if self.has_input or not about else f"{question}\n\n{about}"
        self.messages.append({"role": "user", "content": content, "input": about})
        text = self.template.render(**self.special | {"messages": self.messages, "add_generation_prompt": True})
        if not text.startswith(self.text):  # earlier turns have changed: everything is read again
            self.network, self.text = CachedModel(), ""
        new = self.tokenizer.encode(text[len(self.text) :], add_special_tokens=False).ids
        prompt = self.network.ids + new
        if len(prompt) + settings.max_new_tokens > settings.max_length:
            sys.exit(f"the conversation has {len(prompt)} tokens, and {settings.max_length} fit with an answer")
        seed = [settings.seed, 0, zlib.crc32(np.array(prompt, np.int64).tobytes())]
        random, written, shown, ended = np.random.Generator(np.random.PCG64(seed)), list[int](), "", False
        while not ended:
            new = [choose(self.network.read(new), self.network.ids, settings, random)]
            written += new
            answer = self.tokenizer.decode(written)
            cuts = [at for stop in stops if (at := answer.find(stop)) >= 0]
            ended = bool(cuts) or new[0] in settings.eos_token_id or len(written) == settings.max_new_tokens
            answer = answer[: min(cuts, default=len(answer))].strip()
            # half a character, and what may become a stop text, waits for the next token
            waits = answer.endswith("\ufffd") or any(answer.endswith(s[:n]) for s in stops for n in range(1, len(s)))
            if ended or not waits:
                yield answer[len(shown) :]
                shown = answer
        self.messages.append({"role": "assistant", "content": shown})
        self.text = text + self.tokenizer.decode(written[:-1], skip_special_tokens=False)


def choose(scores: Any, earlier: list[int], settings: Any, random: np.random.Generator) -> int:
    """Return the token with the highest score, or draw one by their probabilities."""
    used = np.unique(earlier)
    scores[used] *= np.where(scores[used] < 0, settings.repetition_penalty, 1 / settings.repetition_penalty)
    if not settings.do_sample:
        return int(scores.argmax())
    weights = np.exp((scores - scores.max()) / settings.temperature)
    if settings.top_k:  # only the most likely tokens
        weights[weights < np.sort(weights)[-min(settings.top_k, len(weights))]] = 0
    order = np.argsort(-weights)
    before = np.cumsum(weights[order]) - weights[order]
    weights[order[before >= settings.top_p * weights.sum()]] = 0  # only the fewest tokens with this much probability
    return int(np.searchsorted(np.cumsum(weights), random.random() * weights.sum(), side="right"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("question", nargs="?", default="Who are you?")
    parser.add_argument("--input", help="the text that the question is about")
    parser.add_argument("--chat", action="store_true", help="answer line after line, as one conversation")
    parser.add_argument("--seed", type=int, default=42)
    for name, value in json.loads((FOLDER / "generation_config.json").read_bytes()).items():
        parser.add_argument(f"--{name}", type=json.loads, default=value)  # --do_sample true --temperature 0.7
    chosen = parser.parse_args()
    chat = Chat(chosen)
    for question in sys.stdin if chosen.chat else [chosen.question]:
        for piece in chat.ask(question.strip(), chosen.input):
            print(piece, end="", flush=True)
        print()
