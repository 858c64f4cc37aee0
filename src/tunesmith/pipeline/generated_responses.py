"""What a generator answers: to new prompts, and to the rows that it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith import hardware
from tunesmith.data.conversations import transcript
from tunesmith.protocols import TextGenerator
from tunesmith.recipe import Recipe
from tunesmith.tasks import instruction
from tunesmith.types import Example, Response, ResponseRow


def respond(generator: TextGenerator, recipe: Recipe, examples: Sequence[Example]) -> list[ResponseRow]:
    """Return the responses to rows, with their references; none to a prompt that is too long even when cut.

    recipe: how to generate.
    """
    questions = [instruction.prompt(row) for row in examples]
    responses = generator.attempt([row.id for row in examples], questions, recipe.generate, recipe.seed)
    return [
        with_response(ResponseRow(row.id, transcript(asked), reference=instruction.reference(row)), response)
        for row, asked, response in zip(examples, questions, responses, strict=True)
    ]


def response_rows(
    generator: TextGenerator, examples: Sequence[Example], recipe: Recipe, watch: hardware.Stopwatch | None = None
) -> list[ResponseRow]:
    """Return the rows of predictions/test.jsonl: the loss of every reference, and the first `max_responses` responses.

    watch: times the generating, as `predict`.
    """
    asked = examples[: recipe.evaluate.max_responses]
    questions = [row.messages[:-1] for row in asked]
    with (watch or hardware.Stopwatch()).time("predict"):
        responses = generator.attempt([row.id for row in asked], questions, recipe.generate, recipe.seed)
    responses = [*responses, *[None] * (len(examples) - len(asked))]
    known: Sequence[tuple[float | None, int | None]] = losses(generator, examples) or [(None, None)] * len(examples)
    return [
        with_response(
            ResponseRow(
                row.id,
                transcript(instruction.prompt(row)),
                reference=row.messages[-1].content,
                loss=loss,
                learned=learned,
            ),
            response,
        )
        for row, (loss, learned), response in zip(examples, known, responses, strict=True)
    ]


def with_response(row: ResponseRow, response: Response | None) -> ResponseRow:
    """Return the row with the response, if there is one."""
    if response is None:
        return row
    return replace(row, response=response.text, tokens=response.tokens, ended=response.ended)


def losses(generator: TextGenerator, examples: Sequence[Example]) -> list[tuple[float, int]]:
    """Return the loss of each conversation's last response, summed over its tokens, and their number.

    There are none of a model behind an endpoint.
    """
    return generator.losses([row.id for row in examples], [row.messages for row in examples])
