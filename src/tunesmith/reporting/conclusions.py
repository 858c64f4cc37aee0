"""What the tests of several models that answered the same prompts come to, in a few plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tunesmith.evaluation.label_pairs import NOTABLE
from tunesmith.evaluation.response_pairs import Figures
from tunesmith.reporting.format import NAMES, chance, figure, level, part, share


def said(methods: Sequence[Figures], compared: Figures) -> str:
    """Whose answers come closest to the references, by how much, what that is worth, and what it costs."""
    return _by_loss(methods, compared) if compared["decided_by"] == "loss" else _by_answers(methods, compared)


def rank(methods: Sequence[Figures], compared: Figures) -> tuple[str, str | None]:
    """The method with the lowest loss (of equals the one that trained fastest), and the untuned one it is held against.

    Without an untuned method, or where that one is best, there is nothing to hold it against: None. Where there are no
    losses the highest figure of `decided_by` counts.
    """
    losses = compared["losses"]
    if compared["decided_by"] != "loss":
        return max(methods, key=lambda m: _figure(m, compared)["value"])["name"], None
    best = min(methods, key=lambda m: (losses[m["name"]], m["costs"]["train_seconds"] or 0))["name"]
    untuned = [m["name"] for m in methods if m["costs"]["trainable"] == 0]
    return best, next((name for name in untuned if name != best and best not in untuned), None)


def _by_loss(methods: Sequence[Figures], compared: Figures) -> str:
    by_name = {method["name"]: method for method in methods}
    best, base = rank(methods, compared)
    beaten, equals = _against(best, compared["pairs"])
    if len(methods) == 1:
        return _alone(methods[0])
    lead = _gain(by_name, best, base, compared) if base in beaten else _lowest(by_name[best], compared)
    others = {name: p for name, p in beaten.items() if name != base}
    sentences = [
        lead,
        f"{best} {'also ' if base in beaten else ''}beats {_with_p(others, max)}." if others else "",
        _undecided(by_name, best, equals, compared["rows"]) if equals else "",
        _closeness(by_name, best, base, compared) if base else "",
        f"Nothing here shows that training was worth its cost: {base} did not train." if base in equals else "",
        "Training lowered the loss nowhere." if by_name[best]["costs"]["trainable"] == 0 else "",
        _measured(compared),
    ]
    return " ".join(filter(None, sentences))


def _by_answers(methods: Sequence[Figures], compared: Figures) -> str:
    best, _ = rank(methods, compared)
    beaten, equals = _against(best, compared["pairs"])
    (winner,) = (method for method in methods if method["name"] == best)
    estimate = _figure(winner, compared)
    low, value, high = (figure(compared["decided_by"], estimate[end]) for end in ("low", "value", "high"))
    interval = f"{level(winner['scores']['confidence'])} interval {low} to {high}"
    shape = f"{share(winner['scores']['headline']['answer_only']['value'])} of its responses are an answer and no more"
    name = NAMES[compared["decided_by"]]
    has = f"the highest {name}, " if len(methods) > 1 else f"a {name} of "
    sentences = [
        f"{best} has {has}{value} on {compared['rows']:,} answers ({interval}); {shape}.",
        f"It beats {_with_p(beaten, max)}." if beaten else "",
        f"It cannot be told from {_with_p(equals, min)} on these {compared['rows']:,} rows." if equals else "",
    ]
    return " ".join(filter(None, sentences))


def _figure(method: Figures, compared: Figures) -> Figures:
    """The figure that decides, of one method."""
    found: Figures = method["scores"]["headline"][compared["decided_by"]]
    return found


def _against(best: str, pairs: Iterable[Figures]) -> tuple[dict[str, float], dict[str, float]]:
    """{name: p} of the methods that `best` beats, and of those it cannot be told from."""
    beaten: dict[str, float] = {}
    equals: dict[str, float] = {}
    for pair in pairs:
        if best in (pair["a"], pair["b"]):
            other = pair["b"] if pair["a"] == best else pair["a"]
            (beaten if pair["distinguishable"] else equals)[other] = pair["p_holm"]
    return beaten, equals


def _alone(method: Figures) -> str:
    scores = method["scores"]
    loss, rows = scores["headline"]["loss"], scores["rows"]
    interval = f"{level(scores['confidence'])} interval {loss['low']:.2f} to {loss['high']:.2f}"
    where = f"per token on {rows:,} test answers ({interval})"
    return f"{method['name']} has a loss of {loss['value']:.2f} {where}{_ends(method)}."


def _closeness(by_name: Mapping[str, Figures], best: str, base: str, compared: Figures) -> str:
    """A lower loss need not show in what is said."""
    name = compared["closeness"]
    (pair,) = (pair for pair in compared["pairs"] if {pair["a"], pair["b"]} == {best, base})
    if name not in pair["differences"]:
        return ""
    before, after = (by_name[one]["scores"]["headline"][name]["value"] for one in (base, best))
    p = pair["differences"][name]["p_holm"]
    sure = p < 1 - by_name[best]["scores"]["confidence"]
    way = ("further from" if after < before else "closer to") if sure else "no closer to"
    figures = f"{NAMES[name]} {figure(name, before)} before, {figure(name, after)} after, {_p(p)}"
    return f"What it says is {way} the references{'' if sure else ' as far as these rows can tell'} ({figures})."


def _lowest(best: Figures, compared: Figures) -> str:
    where = f"on {compared['rows']:,} test answers"
    loss = compared["losses"][best["name"]]
    return f"{best['name']} has the lowest loss {where}, {loss:.2f} per {compared['unit']}{_ends(best)}."


def _gain(by_name: Mapping[str, Figures], best: str, base: str | None, compared: Figures) -> str:
    (ratio,) = (_over(pair, best) for pair in compared["pairs"] if {pair["a"], pair["b"]} == {best, base})
    before, after = (compared["losses"][name] for name in (str(base), best))
    confidence = level(by_name[best]["scores"]["confidence"])
    interval = f"{confidence} interval {_change(ratio['low'])} to {_change(ratio['high'])}"
    return (
        f"{best} lowers the loss on {compared['rows']:,} test answers from {before:.2f} ({base}) to {after:.2f} "
        f"({_change(ratio['value'])}, {interval}){_ends(by_name[best], by_name[str(base)])}."
    )


def _over(pair: Figures, name: str) -> Figures:
    """The pair's ratio with the loss of `name` on top."""
    ratio = pair["loss_ratio"]
    if pair["a"] == name:
        return {end: ratio[end] for end in ("value", "low", "high")}
    return {"value": 1 / ratio["value"], "low": 1 / ratio["high"], "high": 1 / ratio["low"]}


def _change(ratio: float) -> str:
    """−34%, +2.1%."""
    change = 100 * (ratio - 1)
    return f"{change:+.{0 if abs(change) >= 9.95 else 1}f}%".replace("-", "−")


def _ends(method: Figures, base: Figures | None = None) -> str:
    if not method["scores"]["answered"]:
        return ""
    held_against = f" ({base['name']}: {_ended(base)})" if base and base["scores"]["answered"] else ""
    return f", and ends {_ended(method)} of its answers itself{held_against}"


def _ended(method: Figures) -> str:
    return share(method["scores"]["headline"]["ended"]["value"])


def _undecided(by_name: Mapping[str, Figures], best: str, equals: Mapping[str, float], rows: int) -> str:
    told = f"{best} cannot be told from {_with_p(equals, min)} on these {rows:,} rows"
    rivals = [by_name[name] for name in equals if by_name[name]["costs"]["trainable"]]
    if not rivals or not by_name[best]["costs"]["trainable"]:
        return f"{told}."
    cheap, dear = sorted([by_name[best], min(rivals, key=_seconds)], key=_seconds)
    saved = _saving(cheap["costs"], dear["costs"], "" if len(equals) == 1 else f" than {dear['name']}")
    return f"{told}; {cheap['name']} {saved}." if saved else f"{told}."


def _seconds(method: Figures) -> float:
    return float(method["costs"]["train_seconds"] or 0)


def _saving(cheap: Figures, dear: Figures, than: str) -> str:
    """What the cheaper of two that were trained saves, where it is notable."""
    ours, theirs = cheap["train_seconds"] or 0, dear["train_seconds"] or 0
    faster = f"trained {theirs / ours:.1f} times faster{than}" if ours and theirs > NOTABLE * ours else ""
    fewer = dear["trainable"] > NOTABLE * cheap["trainable"]
    changed = f"changed {part(cheap['trainable'] / cheap['parameters'])} of the parameters" if fewer else ""
    return " and ".join(filter(None, [faster, changed]))


def _measured(compared: Figures) -> str:
    """What is unusual about the losses."""
    by_character = "The models cut text into different tokens, so losses are compared per character."
    left_out = f"{compared['left_out']:,} rows too long for one of the models are left out."
    said = [by_character if compared["unit"] == "character" else "", left_out if compared["left_out"] else ""]
    return " ".join(filter(None, said))


def _with_p(p_values: Mapping[str, float], outermost: Callable[[Iterable[float]], float]) -> str:
    """Names, each with its p; beyond three names only the p that bounds them all."""
    if len(p_values) <= 3:
        return _join([f"{name} ({_p(p)})" for name, p in p_values.items()])
    which = "largest" if outermost is max else "smallest"
    return f"{_join(list(p_values))} ({which} {_p(outermost(p_values.values()))})"


def _p(p: float) -> str:
    return f"p {chance(p)}" if p < 0.001 else f"p = {chance(p)}"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
