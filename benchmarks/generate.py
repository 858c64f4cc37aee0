"""Greedy answers of an instruction run: tunesmith's engines, transformers' `generate`, and llama.cpp, in turns.

`generate` gets the prompts sorted by length, longest first, padded on the left, in batches of each given size.
llama.cpp reads the run's GGUF (`--gguf`, from `tunesmith export`) and answers one prompt after another; what a
prompt shares with the one before it is not computed again. `--engines onnx llama-cpp` are the exports in the run by
`generate.engine`. How to run it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure import spread

from tunesmith import runs
from tunesmith.pipeline import new_data
from tunesmith.pipeline.engines import load_generator
from tunesmith.prediction.generate import Generator
from tunesmith.prediction.sampling import GenerationRow
from tunesmith.recipe import Generate
from tunesmith.tasks import instruction

Side = Callable[[], list[list[int]]]


def ours(generator: Any, prompts: Sequence[list[int]], settings: Generate) -> Side:
    """What `respond` runs, with token ids instead of texts."""

    def run() -> list[list[int]]:
        rows = [GenerationRow(prompt, 0, settings.max_new_tokens, settings) for prompt in prompts]
        for _ in generator._generate(rows):
            pass
        return [row.answer for row in rows]

    return run


def transformers_generate(generator: Generator, prompts: Sequence[list[int]], settings: Generate, batch: int) -> Side:
    """The library's own, in batches."""
    model: Any = generator.model
    stops, pad = generator._stops, generator.chat_encoder.tokenizer.pad_token_id

    def run() -> list[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        answers: list[list[int]] = [[]] * len(prompts)
        for start in range(0, len(order), batch):
            group = order[start : start + batch]
            width = max(len(prompts[i]) for i in group)
            pads = [width - len(prompts[i]) for i in group]
            ids_BT = torch.tensor([[pad] * count + prompts[i] for i, count in zip(group, pads, strict=True)])
            mask_BT = torch.tensor([[0] * count + [1] * (width - count) for count in pads])
            with torch.inference_mode():
                output_BT = model.generate(
                    input_ids=ids_BT,
                    attention_mask=mask_BT,
                    max_new_tokens=settings.max_new_tokens,
                    do_sample=False,
                    eos_token_id=stops,
                    pad_token_id=pad,
                )
            for i, ids in zip(group, output_BT[:, width:].tolist(), strict=True):
                ends = [place for place, token in enumerate(ids, 1) if token in stops]
                answers[i] = ids[: ends[0] if ends else None]
        return answers

    return run


def llama_cpp(path: str, prompts: Sequence[list[int]], settings: Generate, stops: Sequence[int], threads: int) -> Side:
    """llama.cpp by its Python bindings."""
    from llama_cpp import Llama

    llama = Llama(path, n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)

    def run() -> list[list[int]]:
        answers = []
        for prompt in prompts:
            answer: list[int] = []
            for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
                answer.append(token)
                if token in stops or len(answer) == settings.max_new_tokens:
                    break
            answers.append(answer)
        return answers

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="an instruction run")
    parser.add_argument("--data", required=True, help="rows to answer")
    parser.add_argument("--rows", type=int, default=110, help="the last rows of the data")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="*", default=[8, 32], help="of transformers' generate")
    parser.add_argument("--gguf", help="the run as GGUF, for llama.cpp")
    parser.add_argument("--engines", nargs="*", default=[], help="besides torch: onnx, llama-cpp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    run = runs.find(args.run)
    generator: Any = load_generator(run)
    settings = Generate(max_new_tokens=args.max_new_tokens)
    examples = new_data.read(new_data.settings(run.recipe, args.data))[-args.rows :]
    conversations = [instruction.prompt(example) for example in examples]
    prompts = generator.encode(conversations, settings.max_new_tokens)
    sides = {"tunesmith": ours(generator, prompts, settings)}
    for name in args.engines:
        sides[f"tunesmith, {name}"] = ours(load_generator(run, name), prompts, settings)
    for batch in args.batches:
        sides[f"generate, batches of {batch}"] = transformers_generate(generator, prompts, settings, batch)
    if args.gguf:
        sides["llama.cpp"] = llama_cpp(args.gguf, prompts, settings, generator._stops, args.threads)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, list[list[int]]] = {}
    for number in range(args.rounds + 1):  # the first warms up
        for name, side in sides.items():
            start = clock()
            answers[name] = side()
            if number:
                seconds[name].append(clock() - start)
            print(f"round {number}, {name}: {clock() - start:.1f} s", file=sys.stderr, flush=True)
    mine = answers["tunesmith"]
    tokens = sum(map(len, mine))
    result = {"rows": len(prompts), "prompt_tokens": sum(map(len, prompts)), "tokens": tokens}
    sides_result = {
        name: {
            "seconds": spread(seconds[name]),
            "tokens_per_second": spread([sum(map(len, answers[name])) / second for second in seconds[name]]),
            "ratio": spread([b / a for a, b in zip(seconds["tunesmith"], seconds[name], strict=True)]),
            "same_answers": sum(a == b for a, b in zip(mine, answers[name], strict=True)),
        }
        for name in sides
    }
    print(json.dumps(result | {"sides": sides_result}, indent=2))


if __name__ == "__main__":
    main()
