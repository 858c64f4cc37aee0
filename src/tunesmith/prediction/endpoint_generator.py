"""A model behind an endpoint that answers conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.conversations import content_with_input, transcript
from tunesmith.data.prompts import Conversation, Ids
from tunesmith.data.shots import Shots
from tunesmith.endpoints.chat_client import EndpointRequest
from tunesmith.errors import ModelError
from tunesmith.prediction import endpoint_file
from tunesmith.prediction.endpoint_file import EndpointFile
from tunesmith.prediction.endpoint_model import EndpointModel, Requests
from tunesmith.protocols import AnswerRequest, Prompt
from tunesmith.recipe import Endpoint, Generate
from tunesmith.types import Message, Response

UNKNOWN_LENGTH = 2**31 - 1
"""The context of a model behind an endpoint, which only the server knows."""


@dataclass(frozen=True)
class EndpointGenerator:
    """A prompted model: every answer is a request, or its reply in the journal."""

    model: EndpointModel
    settings: Endpoint
    system: str | None = None
    """A system message before every conversation that has none."""
    shots: Shots = Shots()
    """Conversations with their answers, before every other."""
    context_length = UNKNOWN_LENGTH

    def max_answer_tokens(self, settings: Generate) -> int:
        """Return how many tokens an answer may have."""
        return settings.max_new_tokens

    def rendered_prompt(self, prompt: Prompt) -> str:
        """Return the conversation for people: the model's template is the server's."""
        return prompt if isinstance(prompt, str) else transcript(self._messages(prompt))

    def tokenize(self, prompt: Prompt) -> Ids:
        """Raise ModelError: only the server knows the tokens."""
        raise _unknown_tokens()

    def requests(
        self, conversations: Sequence[Conversation], settings: Generate, seed: int, repetition: int = 0
    ) -> list[EndpointRequest]:
        """Return the requests for answers to conversations. repetition: to ask the same again."""
        temperature = settings.temperature if settings.do_sample else 0.0
        return [
            self.model.request(self._messages(messages), seed, temperature=temperature, repetition=repetition)
            for messages in conversations
        ]

    def answers(self, requests: Requests) -> list[tuple[str, str]]:
        """Return the text of the reply to each request, twice: it is the answer."""
        return [(record.text, record.text) for record in self.model.records(requests)]

    def respond(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response]:
        """Return one answer per conversation, in the order given. Raises EndpointError as `EndpointModel.records`."""
        replies = self.model.records(self.requests(conversations, settings, seed))
        return [
            Response(name, reply.text.strip(), reply.completion_tokens, ended=not reply.truncated)
            for name, reply in zip(names, replies, strict=True)
        ]

    def attempt(
        self, names: Sequence[str], conversations: Sequence[Conversation], settings: Generate, seed: int
    ) -> list[Response | None]:
        """Do the same: which prompts are too long, only the server knows."""
        return list(self.respond(names, conversations, settings, seed))

    def samples(
        self, conversations: Sequence[Conversation], number: int, settings: Generate, seed: int
    ) -> list[list[Response]]:
        """Return several answers to each conversation; the first is that of `respond`."""
        requests = [
            request
            for messages in conversations
            for place in range(number)
            for request in self.requests([messages], settings, seed + place)
        ]
        replies = self.model.records(requests)
        responses = [
            Response(str(place // number), reply.text.strip(), reply.completion_tokens, ended=not reply.truncated)
            for place, reply in enumerate(replies)
        ]
        return [responses[start : start + number] for start in range(0, len(responses), number)]

    def stream(self, messages: Conversation, settings: Generate, seed: int) -> Iterator[str]:
        """Yield the whole answer at once."""
        yield self.respond(["prompt"], [messages], settings, seed)[0].text

    def write(self, take: Callable[[int], Sequence[AnswerRequest]], places: int) -> None:
        """Raise ModelError: only the server knows the tokens."""
        raise _unknown_tokens()

    def losses(self, names: Sequence[str], conversations: Sequence[Conversation]) -> list[tuple[float, int]]:
        """Return no loss at all: a server does not say how probable a given text is."""
        return []

    def save(self, folder: Path) -> None:
        """Write endpoint.json, which has no key, and the shots."""
        settings = self.settings.model_dump(mode="json")
        endpoint_file.write(folder, EndpointFile(settings=settings, system=self.system))
        self.shots.save(folder)

    def _messages(self, messages: Conversation) -> list[Message]:
        shown = [turn for row in self.shots.rows for turn in row.messages if turn.role != "system"]
        own = [turn for turn in messages if turn.role == "system"]
        rest = [turn for turn in messages if turn.role != "system"]
        turns = [Message(turn.role, content_with_input(turn)) for turn in (*own, *shown, *rest)]
        if self.system and all(message.role != "system" for message in turns):
            turns = [Message("system", self.system), *turns]
        return turns


def _unknown_tokens() -> ModelError:
    return ModelError("the tokens of a model behind an endpoint are not known here", do="ask the endpoint itself")
