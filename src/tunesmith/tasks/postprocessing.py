"""Code that turns a model's outputs into predictions without tunesmith, by problem type: for model cards and run.py.

It reads what `text_targets.to_config` wrote into the model's configuration.
"""

from __future__ import annotations

from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target

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
DECIDE = '''\
def decide(logits):
    """Return the label of a text: calibrated, and with the costs or the threshold that were chosen."""
    names, decision = list(config["id2label"].values()), config["decision"]
    logs = logits - logits.max()
    logs = logs - numpy.log(numpy.exp(logs).sum())
    p, c = numpy.exp(logs), decision.get("calibration")
    if c and c["kind"] == "isotonic":
        p = numpy.array([numpy.interp(x, *zip(*steps)) for x, steps in zip(p, c["steps"])])
    elif c and c["kind"] == "sigmoid":
        odds = logs - numpy.log(numpy.maximum(-numpy.expm1(numpy.minimum(logs, -1e-300)), 1e-300))
        p = 1 / (1 + numpy.exp(-numpy.clip(odds * c["scale"] + c["bias"], -700, 700)))
    elif c:
        p = logs * c["scale"] + (c["bias"] or 0)
        p = numpy.exp(p - p.max())
    p = p / p.sum() if p.sum() else p
    if decision.get("costs"):
        return names[(p @ numpy.array(decision["costs"])).argmin()]
    threshold = decision.get("threshold")
    if threshold:
        k = names.index(threshold["label"])
        if p[k] >= threshold["probability"]:
            return names[k]
        p[k] = -1
    return names[p.argmax()]
'''
"""The same as `tasks.decisions`, for users without tunesmith."""


def of_logits(target: Target) -> tuple[str, list[str]]:
    """Return a function that the lines of `LOGITS` need, if any, and the lines."""
    if _decides(target):
        return DECIDE, ["decide(row.astype(float))"]
    return "", LOGITS[target.problem_type]


def pipeline_lines(target: Target, text: str, *, has_config: bool = False) -> list[str]:
    """Return lines that ask `classify`, a pipeline, about a text. has_config: whether the code before has `config`."""
    if _decides(target):
        return [
            "import numpy\n",
            f"config = {'config' if has_config else 'classify.model.config'}.to_dict()\n\n",
            f"{DECIDE}\n",
            f'scores = {{s["label"]: s["score"] for s in classify({text}, truncation=True, top_k=None)}}',
            'print(decide(numpy.log([scores[name] for name in config["id2label"].values()])))',
        ]
    lines = PIPELINE[target.problem_type]
    before = ["config = classify.model.config"] if not has_config and any("config." in line for line in lines) else []
    return [*before, *(line.replace("{scores}", f"classify({text}, truncation=True, top_k=None)") for line in lines)]


def _decides(target: Target) -> bool:
    return isinstance(target, SingleLabel) and target.decision is not None
