"""Answers of a causal language model: to many prompts at once, several to one prompt, or streamed.

The answer to a prompt does not depend on its batch: `decoding` gives it the logits that it would have alone, and
`sampling` random numbers of its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn

from tunesmith import processes, records
from tunesmith.console import say, track, warn
from tunesmith.data import truncation
from tunesmith.data.label_questions import LabelQuestion
from tunesmith.data.prompts import ChatEncoder, Conversation, Ids
from tunesmith.data.rows import listed
from tunesmith.errors import DataError, ModelError
from tunesmith.models import generation_cache, pretrained
from tunesmith.prediction import decoding, likelihood
from tunesmith.prediction.sampling import GenerationRow
from tunesmith.prediction.streaming import IncrementalText, StopCondition
from tunesmith.protocols import AnswerRequest, ChatSpec, Logits, ModelParts, Prompt, PromptWithAnswer
from tunesmith.recipe import Generate, Model, Predict
from tunesmith.records import omitted_if_none
from tunesmith.tasks import instruction
from tunesmith.types import Example, Message, Response

SETTINGS = "prompt.json"


@dataclass(frozen=True, slots=True)
class GeneratorSettings:
    """What prompt.json holds, beside the weights."""

    system: str | None
    max_length: int
    base: Model | None
    """See `Generator.base`."""
    shots: tuple[tuple[Message, ...], ...] | None = omitted_if_none()
    """Conversations that every other one is shown after."""
    question: LabelQuestion | None = omitted_if_none()
    """What a classifier asks about each text."""
    predict: Predict | None = omitted_if_none()
    """How a classifier reads the label."""
    target: dict[str, Any] | None = omitted_if_none()
    """What a classifier predicts, as `text_targets.to_settings` writes it."""


@dataclass(frozen=True)
class Generator:
    """A causal language model that answers conversations."""

    model: nn.Module
    chat_encoder: ChatEncoder
    max_length: int
    """Most tokens of prompt and answer together; the model's positions are another limit."""
    base: Model | None = None
    """The source of a model that was not tuned, whose weights are not saved again."""
    packs_up_to: int = 0
    """The longest reach (`packing.reach`) of the sequences for which `packing.set_up` has set up the model."""

    def respond(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response]:
        """Return one answer per conversation, in the order given. Sampled answers depend on seed and prompt alone.

        An answer has at most `max_new_tokens`, and at most half of `max_length`; longer prompts are shortened, with a
        note. It ends with the template's end token; if the model begins the template's next turn instead, the answer
        is cut there and has not `ended`.
        """
        limit = self.max_answer_tokens(settings)
        prompts = self.encode(conversations, limit)

        def answer(share: Sequence[Ids]) -> list[Ids]:
            rows = [GenerationRow(prompt, seed, limit, settings) for prompt in share]
            for _ in track(self._generate(rows), "answer", len(rows)):
                pass
            return [row.answer for row in rows]

        answers = processes.share(prompts, answer)
        return [self._response(name, ids) for name, ids in zip(names, answers, strict=True)]

    def attempt(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response | None]:
        """Do the same, with None and a warning for prompts that are too long even when cut."""
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

    def samples(
        self, conversations: Sequence[Conversation], number: int, settings: Generate, seed: int
    ) -> list[list[Response]]:
        """Return several answers to each conversation; its prompt is computed once, its first answer is `respond`'s."""
        limit = self.max_answer_tokens(settings)
        prompts = self.encode(conversations, limit)
        rows = [[GenerationRow(prompt, seed, limit, settings, i) for i in range(number)] for prompt in prompts]
        for _ in track(self._generate([*chain(*rows)]), "sample", len(prompts) * number):
            pass
        return [[self._response(str(row.number), row.answer) for row in samples] for samples in rows]

    def stream(self, messages: Conversation, settings: Generate, seed: int) -> Iterator[str]:
        """Yield the answer of `respond` in pieces, as they are generated; closing the iterator ends the generation."""
        max_tokens = self.max_answer_tokens(settings)
        (prompt,) = self.encode([messages], max_tokens)
        pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
        closed = threading.Event()

        def on_token(piece: str, response: Response | None) -> bool:
            pieces.put(piece)
            return not closed.is_set()

        requests = [AnswerRequest(prompt, max_tokens, seed, settings, on_token)]

        def run() -> None:
            try:
                self.write(lambda free: [requests.pop()] if requests else [], 1)
                pieces.put(None)
            except BaseException as error:  # raised again by the thread that reads the pieces
                pieces.put(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                if piece:
                    yield piece
        finally:
            closed.set()
            thread.join()

    def write(self, take: Callable[[int], Sequence[AnswerRequest]], places: int) -> None:
        """Answer requests piece by piece until `take` has none; they may come while others are being answered."""
        under_way: dict[GenerationRow, tuple[AnswerRequest, IncrementalText]] = {}

        def take_rows(free: int) -> list[GenerationRow]:
            rows = []
            for request in take(free) if free else ():
                row = GenerationRow(request.prompt, request.seed, request.max_tokens, request.settings)
                under_way[row] = request, IncrementalText(self._stable_text)
                rows.append(row)
            return rows

        def listener(row: GenerationRow, last: bool) -> bool:
            request, text = under_way[row]
            piece = text.add(row.answer[-1])
            if not last:
                return request.on_token(piece, None)
            response = self._response("", row.answer)
            return request.on_token(piece + text.remainder(response.text), response)

        places = generation_cache.most_places(self.model, self.context_length, places)
        for row in self._decode_rows(take_rows, places, listener):
            del under_way[row]

    def rendered_prompt(self, prompt: Prompt) -> str:
        """Return the text that an answer follows: a conversation in its template, or a text as it is."""
        return prompt if isinstance(prompt, str) else self.chat_encoder.rendered_prompt(prompt)

    def tokenize(self, prompt: Prompt) -> Ids:
        """Return the ids of `rendered_prompt`; a plain text begins as the tokenizer begins texts."""
        if isinstance(prompt, str):
            return list(self.chat_encoder.tokenizer(prompt, verbose=False)["input_ids"])
        return self.chat_encoder.encode_prompts([prompt])[0]

    def encode(self, conversations: Sequence[Conversation], max_answer_tokens: int, log: bool = True) -> list[Ids]:
        """Return prompts as ids, with room for `max_answer_tokens`; a note counts the prompts that were shortened.

        Raises DataError for prompts that cannot be shortened enough.
        """
        limit = self.context_length - max_answer_tokens
        encoded, cut = truncation.encode_prompts(conversations, self.chat_encoder, limit)
        prompts = [ids for ids in encoded if ids is not None]
        if len(prompts) < len(encoded):
            expected, found = f"at most {limit} tokens (model.max_length)", "more, even without the text"
            do = "raise model.max_length, or shorten the instruction"
            raise DataError("the prompt around a text is too long", expected=expected, found=found, do=do)
        if cut and log:
            say(f"note: {len(cut):,} of {len(prompts):,} prompts were shortened to {limit} tokens")
        return prompts

    def max_answer_tokens(self, settings: Generate) -> int:
        """Return how long an answer may be: half of a short `max_length` is reserved for the prompt."""
        return max(1, min(settings.max_new_tokens, self.context_length // 2))

    @property
    def context_length(self) -> int:
        """How many tokens of prompt and answer `max_length` and the model's positions allow."""
        config: Any = self.model.config
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        return min(self.max_length, positions) if isinstance(positions, int) and positions > 0 else self.max_length

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def losses(self, names: Sequence[str], conversations: Sequence[Conversation]) -> list[likelihood.Loss]:
        """Return one loss per conversation; (0, 0), with a warning, where the answer alone is too long."""
        limit, packs_up_to = self.context_length, self.packs_up_to
        return likelihood.losses(self.model, self.chat_encoder, limit, names, conversations, packs_up_to)

    def parts(self) -> ModelParts:
        chat = ChatSpec(self.chat_encoder, self.stops)
        return ModelParts(self.model, self.chat_encoder.tokenizer, self.context_length, chat=chat)

    def parity_rows(self, examples: Sequence[Example], settings: Generate) -> list[PromptWithAnswer]:
        return [self.answer_greedily(instruction.prompt(example), settings) for example in examples]

    def answer_greedily(self, conversation: Conversation, settings: Generate) -> PromptWithAnswer:
        """Return a prompt with its greedy answer; end tokens and headings stay as the model writes them."""
        limit = self.max_answer_tokens(settings)
        (ids,) = self.encode([conversation], limit, log=False)
        row, ends = GenerationRow(ids, 0, limit, Generate()), self.chat_encoder.end_ids

        def ended(row: GenerationRow) -> bool:
            return len(row.answer) >= limit or row.answer[-1] in ends

        [*decoding.decode(generation_cache.of(self.model, 1), decoding.queue([row], 1), ended, 1)]
        return PromptWithAnswer([*ids, *row.answer], len(ids))

    def logits(self, rows: Sequence[PromptWithAnswer]) -> list[Logits]:
        """Return T x V for each row: the logits that predict each of the T tokens of an answer.

        If every token has the highest logit, the model would have given the same answer.
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
        """Write plain Hugging Face files and prompt.json; no weights for a model that was not tuned."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.base is None:
            pretrained.save(folder, self.model, self.chat_encoder.tokenizer)
        else:
            self.chat_encoder.tokenizer.save_pretrained(folder)
        chat = self.chat_encoder
        write_settings(folder, GeneratorSettings(chat.system, self.max_length, self.base, chat.shots or None))

    @classmethod
    def load(cls, folder: Path, trust_remote_code: bool = False) -> Generator:
        """Load what `save` wrote; the template comes with the tokenizer. Raises ModelError if files are missing."""
        settings = read_settings(folder)
        base = settings.base
        if base is None:
            model, tokenizer = pretrained.saved_causal_lm(folder, trust_remote_code)
        else:
            base = base.model_copy(update={"trust_remote_code": trust_remote_code})
            tokenizer = pretrained.tokenizer(Model(name_or_path=str(folder), trust_remote_code=trust_remote_code))
            model = pretrained.causal_lm(base, tokenizer, 0).module.eval().to(processes.device())
        chat_encoder = ChatEncoder(tokenizer, settings.system, shots=settings.shots or ())
        return cls(model, chat_encoder, settings.max_length, base)

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer, for other software: special tokens and the template's headings."""
        tokens = self.chat_encoder.tokenizer.convert_ids_to_tokens(self._stops)
        return [*tokens, *(marker.strip() for marker in self._markers)]

    @cached_property
    def _stops(self) -> list[int]:
        """The tokens that end an answer: the end tokens, and special tokens of the template."""
        tokenizer = self.chat_encoder.tokenizer
        text = "".join(text for text, _ in self.chat_encoder.pieces([Message("user", "a"), Message("assistant", "b")]))
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special and str(token) in text}
        return sorted({*self.chat_encoder.end_ids, *special})

    @cached_property
    def _markers(self) -> list[str]:
        """The template's headings in plain text (`### Human:`), with a newline before those that begin a line."""
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
        """Return the answer as text, without the template's."""
        return self._before_marker(self._answer(ids)).strip()

    @cached_property
    def _lead(self) -> str:
        """The text before every answer in the template (empty thoughts, with Qwen3), which models learn to write."""
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

    def _stable_text(self, ids: Ids) -> str:
        """Return the part of `_text` that later tokens cannot change: no partial character or heading."""
        if self._lead.startswith(self._decode(ids).strip()):
            return ""
        text = self._before_marker(self._answer(ids))
        ends = [len(text.rstrip().rstrip("\ufffd").rstrip())]
        for marker in self._markers:
            ends += [len(text) - n for n in range(1, len(marker)) if ("\n" + text).endswith(marker[:n])]
        return text[: max(0, min(ends))].strip()

    def _generate(self, rows: Sequence[GenerationRow]) -> Iterator[GenerationRow]:
        """Fill the answer of each row, and yield it when that has ended."""
        longest = max((len(row.prompt) + row.limit for row in rows), default=1)
        most = min(len(rows), max((row.settings.batch_size for row in rows), default=1))
        places = generation_cache.most_places(self.model, longest, most)
        return self._decode_rows(decoding.queue(rows, places), places)

    def _decode_rows(
        self,
        take: decoding.Take,
        places: int,
        listener: Callable[[GenerationRow, bool], bool] = lambda row, last: True,
    ) -> Iterator[GenerationRow]:
        """Generate up to and with the first stop token of each answer, or the last character of a heading.

        listener: receives a row with a new token, and whether it is the last; returns whether to continue.
        """
        stop = StopCondition(self._stops, self._markers, self._decode)

        def ends(row: GenerationRow) -> bool:
            last = len(row.answer) >= row.limit or stop.ends(row.answer)
            return not listener(row, last) or last

        return decoding.decode(generation_cache.of(self.model, places), take, ends, places)


def write_settings(folder: Path, settings: GeneratorSettings) -> None:
    """Write prompt.json beside the weights."""
    content = json.dumps(records.dump(settings), ensure_ascii=False, indent=1)
    (folder / SETTINGS).write_text(content + "\n", encoding="utf-8")


def read_settings(folder: Path) -> GeneratorSettings:
    """Return what prompt.json holds. Raises ModelError for a folder without it."""
    path = folder / SETTINGS
    if not path.is_file():
        raise ModelError(f"{folder} has no {SETTINGS}", expected="the folder of a generator that tunesmith saved")
    return records.read(GeneratorSettings, path)
