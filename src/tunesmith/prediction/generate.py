"""Answers of a causal language model: to many prompts at once, several to one prompt, or as they are written.

Every prompt has the same answer whatever stands beside it in a batch. The library's loop always takes the likeliest
token; where tokens are drawn, `SeededSampler` has chosen them before, each row with its own numbers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith import processes
from tunesmith.console import say, track, warn
from tunesmith.data import truncation
from tunesmith.data.prompts import ChatEncoder, Conversation, Ids
from tunesmith.data.rows import listed
from tunesmith.errors import DataError, ModelError
from tunesmith.models import onednn_linear, pretrained
from tunesmith.prediction import likelihood
from tunesmith.prediction.sampling import GenerationRow, SeededSampler
from tunesmith.prediction.streaming import BatchStreamer, IncrementalText, StopCondition, Tokens
from tunesmith.protocols import ChatSpec, Logits, ModelParts, OnToken, Prompt, PromptWithAnswer
from tunesmith.recipe import Generate, Model
from tunesmith.tasks import instruction
from tunesmith.types import Example, Message, Response

SETTINGS = "prompt.json"
PLAIN = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_new_tokens": None,
    "min_length": 0,
    "use_cache": True,
    "return_dict_in_generate": False,
}
"""What a model's own generation settings may say otherwise: the recipe decides."""


@dataclass(frozen=True)
class Generator:
    """A causal language model that answers conversations."""

    model: nn.Module
    chat_encoder: ChatEncoder
    max_length: int
    """Most tokens of prompt and answer together; the model's positions are a limit too."""
    base: Model | None = None
    """Of a model that was not tuned: where it came from. Its weights are then not saved again."""

    def respond(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response]:
        """Return one answer a conversation, in the order given. Sampled ones depend on the seed and the prompt alone.

        An answer has at most `max_new_tokens`, and at most half of `max_length`; longer prompts are shortened, with
        a note. It ends with the template's end token; where a model goes on with the template's next turn
        instead, it is cut there and has not `ended`.
        """
        prompts = self.encode(conversations, self.max_answer_tokens(settings))
        written: list[Ids] = [[]] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        groups = [order[i : i + settings.batch_size] for i in range(0, len(order), settings.batch_size)]
        for group in track(groups, "answer"):
            answers = self._generate([GenerationRow(prompts[i], seed) for i in group], settings)
            for position, ids in zip(group, answers, strict=True):
                written[position] = ids
        return [self._response(name, ids) for name, ids in zip(names, written, strict=True)]

    def attempt(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response | None]:
        """As `respond`, with None for prompts that are too long even when they are cut, with a warning."""
        prompts, _ = truncation.encode_prompts(
            conversations, self.chat_encoder, self.context_length - self.max_answer_tokens(settings)
        )
        fit = [i for i, ids in enumerate(prompts) if ids is not None]
        if out := [name for name, ids in zip(names, prompts, strict=True) if ids is None]:
            warn(
                f"{len(out):,} of {len(prompts):,} prompts are too long even when cut, and not answered: {listed(out)}"
            )
        chosen = [names[i] for i in fit], [conversations[i] for i in fit]
        answers = dict(zip(fit, self.respond(*chosen, settings, seed), strict=True))
        return [answers.get(i) for i in range(len(names))]

    def samples(self, conversation: Conversation, number: int, settings: Generate, seed: int) -> list[Response]:
        """Several answers to one conversation, whose prompt is computed once; the first is that of `respond`."""
        (prompt,) = self.encode([conversation], self.max_answer_tokens(settings))
        responses: list[Response] = []
        for start in range(0, number, settings.batch_size):
            rows = [GenerationRow(prompt, seed, i) for i in range(start, min(start + settings.batch_size, number))]
            answers = self._generate(rows, settings, past_key_values=self._read(prompt[:-1], len(rows)))
            responses += [self._response(str(start + i), ids) for i, ids in enumerate(answers)]
        return responses

    def stream(self, messages: Conversation, settings: Generate, seed: int) -> Iterator[str]:
        """The answer of `respond` in pieces as they are written; closing the iterator ends the writing."""
        (prompt,) = self.encode([messages], self.max_answer_tokens(settings))
        tokens, answer = Tokens(), IncrementalText(self._settled)
        thread = threading.Thread(
            target=tokens.fill, args=(self._generate, [GenerationRow(prompt, seed)], settings), daemon=True
        )
        thread.start()
        try:
            for token in tokens:
                if piece := answer.add(token):
                    yield piece
            if rest := answer.rest(self._text):
                yield rest
        finally:
            tokens.closed.set()
            thread.join()

    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: Sequence[int],
        seeds: Sequence[int],
        settings: Generate,
        on_token: OnToken,
    ) -> None:
        """Answer tokenized prompts at once, piece by piece. max_tokens: with the prompt at most `context_length`."""
        answers = [IncrementalText(self._settled) for _ in prompts]

        def add(row: int, token: int, last: bool) -> bool:
            piece = answers[row].add(token)
            if not last:
                return on_token(row, piece, None)
            ids = self._cut(answers[row].ids, len(answers[row].ids))
            return on_token(row, piece + answers[row].rest(self._text), self._response(str(row), ids))

        rows = [GenerationRow(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        longest = settings.model_copy(update={"max_new_tokens": max(max_tokens)})
        self._generate(rows, longest, BatchStreamer(max_tokens, self._stops, add), whole=True)

    def rendered_prompt(self, prompt: Prompt) -> str:
        """The text that an answer follows: a conversation in its template, or a text as it is."""
        return prompt if isinstance(prompt, str) else self.chat_encoder.rendered_prompt(prompt)

    def tokenize(self, prompt: Prompt) -> Ids:
        """The ids of `rendered_prompt`; a plain text begins as the tokenizer begins texts."""
        if isinstance(prompt, str):
            return list(self.chat_encoder.tokenizer(prompt, verbose=False)["input_ids"])
        return self.chat_encoder.encode_prompts([prompt])[0]

    def encode(self, conversations: Sequence[Conversation], max_answer_tokens: int, log: bool = True) -> list[Ids]:
        """Prompts as ids, with `max_answer_tokens` left for an answer; a note counts what had to be shortened.

        Raises DataError where that is not enough.
        """
        limit = self.context_length - max_answer_tokens
        encoded, cut = truncation.encode_prompts(conversations, self.chat_encoder, limit)
        prompts = [ids for ids in encoded if ids is not None]
        if len(prompts) < len(encoded):
            raise DataError(
                f"the prompt around a text has more than {limit} tokens", do="raise model.max_length, or ask less"
            )
        if cut and log:
            say(f"note: {len(cut):,} of {len(prompts):,} prompts were shortened to {limit} tokens")
        return prompts

    def max_answer_tokens(self, settings: Generate) -> int:
        """Most tokens of an answer: of a short `max_length`, half belongs to the prompt."""
        return max(1, min(settings.max_new_tokens, self.context_length // 2))

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer that `max_length` and the model's positions allow."""
        config: Any = self.model.config
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        return min(self.max_length, positions) if isinstance(positions, int) and positions > 0 else self.max_length

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def losses(self, names: Sequence[str], conversations: Sequence[Conversation]) -> list[likelihood.Loss]:
        """One loss per conversation, in the order given; (0, 0) where an answer alone is too long, with a warning."""
        return likelihood.losses(self.model, self.chat_encoder, self.context_length, names, conversations)

    def parts(self) -> ModelParts:
        chat = ChatSpec(self.chat_encoder, self.stops)
        return ModelParts(self.model, self.chat_encoder.tokenizer, self.context_length, chat=chat)

    def parity_rows(self, examples: Sequence[Example], settings: Generate) -> list[PromptWithAnswer]:
        return [self.answer_greedily(instruction.prompt(example), settings) for example in examples]

    def answer_greedily(self, conversation: Conversation, settings: Generate) -> PromptWithAnswer:
        """A prompt with the likeliest answer, end tokens and headings left as the model writes them."""
        max_answer_tokens = self.max_answer_tokens(settings)
        (ids,) = self.encode([conversation], max_answer_tokens, log=False)
        with torch.inference_mode():
            ids_1T = torch.tensor([ids], device=self.device)
            found_1T = self.model.eval().generate(  # type: ignore[operator]
                input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T), **PLAIN, max_new_tokens=max_answer_tokens
            )
        return PromptWithAnswer(found_1T[0].tolist(), len(ids))

    def logits(self, rows: Sequence[PromptWithAnswer]) -> list[Logits]:
        """T x V: what the model predicts before each of the T tokens of an answer.

        Where the likeliest of each is that token, the model would have written the same answer.
        """
        self.model.eval()
        with torch.inference_mode():
            return [
                self.model(input_ids=torch.tensor([row.ids[:-1]], device=self.device))
                .logits[0, row.start - 1 :]
                .float()
                .cpu()
                .numpy()
                for row in rows
            ]

    def with_model(self, model: nn.Module) -> Generator:
        return replace(self, model=model, base=None)

    def save(self, folder: Path) -> None:
        """Plain Hugging Face files and prompt.json; of a model that was not tuned, no weights."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.base is None:
            pretrained.save(folder, self.model, self.chat_encoder.tokenizer)
        else:
            self.chat_encoder.tokenizer.save_pretrained(folder)
        base = None if self.base is None else self.base.model_dump(mode="json")
        write_settings(folder, {"system": self.chat_encoder.system, "max_length": self.max_length, "base": base})

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False) -> Generator:
        """What `save` wrote; the template comes with the tokenizer. Raises ModelError where files are missing."""
        content = read_settings(folder)
        if content["base"] is None:
            base = None
            model, tokenizer = pretrained.saved_causal_lm(folder, trust_remote_code)
        else:
            base = Model(**content["base"] | {"trust_remote_code": trust_remote_code})
            tokenizer = pretrained.tokenizer(Model(name_or_path=str(folder), trust_remote_code=trust_remote_code))
            model = pretrained.causal_lm(base, tokenizer, 0).module.eval().to(processes.device())
        return cls(model, ChatEncoder(tokenizer, content["system"]), content["max_length"], base)

    @property
    def stops(self) -> list[str]:
        """What ends an answer, for other software: special tokens and the template's headings."""
        tokens = self.chat_encoder.tokenizer.convert_ids_to_tokens(self._stops)
        return [*tokens, *(marker.strip() for marker in self._markers)]

    @cached_property
    def _stops(self) -> list[int]:
        """Tokens behind which there is no more answer: the end tokens, and special ones that the template writes."""
        tokenizer = self.chat_encoder.tokenizer
        text = "".join(text for text, _ in self.chat_encoder.pieces([Message("user", "a"), Message("assistant", "b")]))
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special and str(token) in text}
        return sorted({*self.chat_encoder.end_ids, *special})

    @cached_property
    def _markers(self) -> list[str]:
        """The template's headings in plain text (`### Human:`), with a newline where they begin a line."""
        turns = [Message("user", "q1q"), Message("assistant", "a1a"), Message("user", "q2q", "i2i")]
        special = [str(token) for token in self.chat_encoder.tokenizer.added_tokens_decoder.values() if token.special]
        text = self.chat_encoder.rendered_prompt(turns).partition("a1a")[2]
        for token in special:
            text = text.removeprefix(token)
        turn, _, rest = text.partition("q2q")
        between, _, answer = rest.partition("i2i")
        headings = [
            text for text in (turn, between, answer) if text.strip() and not any(token in text for token in special)
        ]
        return [("\n" if text.startswith("\n") else "") + text.strip() for text in headings]

    def _response(self, name: str, ids: Ids) -> Response:
        return Response(name, self._text(ids), len(ids), bool(ids) and ids[-1] in self.chat_encoder.end_ids)

    def _text(self, ids: Ids) -> str:
        """The answer for people."""
        return self._before_marker(self._answer(ids)).strip()

    @cached_property
    def _lead(self) -> str:
        """What the template writes before every answer (empty thoughts, with Qwen3), and models learn to write."""
        text, _ = self.chat_encoder.pieces([Message("user", "a"), Message("assistant", "b1b")])[-1]
        return self._decode(self.chat_encoder.tokens([text])[0]).partition("b1b")[0].strip()

    def _answer(self, ids: Ids) -> str:
        text = self._decode(ids)
        return text.lstrip().removeprefix(self._lead) if self._lead else text

    def _decode(self, ids: Ids) -> str:
        tokenizer = self.chat_encoder.tokenizer
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _before_marker(self, text: str) -> str:
        whole = "\n" + text  # the answer's own first line begins a line too
        return whole[: min((at for marker in self._markers if (at := whole.find(marker)) >= 0), default=len(whole))][1:]

    def _settled(self, ids: Ids) -> str:
        """As much of `_text` as later tokens cannot change: no half characters, no space or heading that may go on."""
        if self._lead.startswith(self._decode(ids).strip()):
            return ""
        text = self._before_marker(self._answer(ids))
        ends = [len(text.rstrip().rstrip("\ufffd").rstrip())]
        for marker in self._markers:
            ends += [len(text) - n for n in range(1, len(marker)) if ("\n" + text).endswith(marker[:n])]
        return text[: max(0, min(ends))].strip()

    def _read(self, ids: Ids, rows: int) -> Any | None:
        """What the model keeps of a prompt, computed once, for a number of rows."""
        if not ids:
            return None
        self.model.eval()
        with torch.inference_mode(), onednn_linear.enabled():
            kept = self.model(input_ids=torch.tensor([ids], device=self.device), use_cache=True).past_key_values
            kept.batch_repeat_interleave(rows)
        return kept

    def _generate(
        self,
        rows: Sequence[GenerationRow],
        settings: Generate,
        tokens: Tokens | BatchStreamer | None = None,
        whole: bool = False,
        **more: Any,
    ) -> list[Ids]:
        """The answers' ids: up to and with the first stop, or the last character of a heading.

        whole: `max_new_tokens` has been made to fit, and is not to be halved.
        """
        self.model.eval()
        width = max(len(row.prompt) for row in rows)
        pad = self.chat_encoder.tokenizer.pad_token_id
        ids_BT = torch.tensor([[pad] * (width - len(row.prompt)) + row.prompt for row in rows], device=self.device)
        mask_BT = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows])
        stop = StopCondition(width, self._markers, self._decode, tokens, tokens.ends if tokens else {})
        plain = not settings.do_sample and settings.repetition_penalty == 1
        with torch.inference_mode(), onednn_linear.enabled():
            found_BT = self.model.generate(  # type: ignore[operator]
                input_ids=ids_BT,
                attention_mask=mask_BT.to(self.device),
                max_new_tokens=settings.max_new_tokens if whole else self.max_answer_tokens(settings),
                eos_token_id=self._stops,
                pad_token_id=pad,
                stopping_criteria=[stop],
                logits_processor=[] if plain else [SeededSampler.of(rows, width, settings)],
                streamer=tokens,
                synced_gpus=False,  # a sharded model is whole while it is evaluated, by one process perhaps
                **PLAIN,
                **more,
            )
        return [self._cut(row, stop.ends.get(i, len(row))) for i, row in enumerate(found_BT[:, width:].tolist())]

    def _cut(self, ids: Ids, end: int) -> Ids:
        return ids[: min([i + 1 for i, token in enumerate(ids) if token in self._stops] + [end])]


def write_settings(folder: Path, changes: dict[str, Any]) -> None:
    """Add to prompt.json, which lies beside the weights."""
    path = folder / SETTINGS
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any]:
    """What prompt.json says. Raises ModelError where there is none."""
    path = folder / SETTINGS
    if not path.is_file():
        raise ModelError(f"{folder} has no {SETTINGS}", expected="the folder of a generator that tunesmith saved")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
