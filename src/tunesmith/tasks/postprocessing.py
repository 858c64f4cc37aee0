"""Code that turns a model's outputs into predictions without tunesmith, by problem type: for model cards and run.py.

It reads what `text_targets.to_config` wrote into the model's configuration.
"""

from __future__ import annotations

from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number

PIPELINE = {
    SingleLabel.problem_type: ["print({scores})"],
    MultiLabel.problem_type: [
        "scores = {scores}",
        'print([s for s in scores if s["score"] >= config.thresholds[config.label2id[s["label"]]]])',
    ],
    Number.problem_type: [
        "(output,) = {scores}",
        'print(output["score"] * config.target_scale + config.target_mean)',
    ],
}
"""Lines that print what a transformers pipeline says of a text."""
LOGITS = {
    SingleLabel.problem_type: ['config["id2label"][str(row.argmax())]'],
    MultiLabel.problem_type: [
        "scores = 1 / (1 + numpy.exp(-row.astype(float)))",
        'names = [config["id2label"][str(k)] for k, s in enumerate(scores) if s >= config["thresholds"][k]]',
        '", ".join(names)',
    ],
    Number.problem_type: ['float(row[0]) * config["target_scale"] + config["target_mean"]'],
}
"""Lines that turn a row of logits, an array, into an answer: the last is its expression. They have `numpy`, and
`config`, a dictionary."""


def pipeline_lines(problem_type: str, text: str, *, has_config: bool = False) -> list[str]:
    """Return lines that ask `classify`, a pipeline, about a text. has_config: whether the code before has `config`."""
    lines = PIPELINE[problem_type]
    before = ["config = classify.model.config"] if not has_config and any("config." in line for line in lines) else []
    return [*before, *(line.replace("{scores}", f"classify({text}, truncation=True, top_k=None)") for line in lines)]
