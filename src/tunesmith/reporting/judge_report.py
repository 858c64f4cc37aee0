"""What a judge said, for people: a page, its Markdown twin, and one sentence. Pure functions, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.correlation import NAMES
from tunesmith.reporting import page
from tunesmith.reporting.format import NOTHING, chance, level, metric, share
from tunesmith.reporting.markdown import plain, quote, sign, table

Content = Mapping[str, Any]
"""What `judged.json` holds; `pipeline.judge` makes it."""
CONTROLS = {
    "empty": "an empty answer",
    "sure": "“Sure!”",
    "shuffled": "another row's reference",
    "reference": "the reference itself",
}


def html(content: Content) -> str:
    """One self-contained page."""
    return page.render("judge.html.j2", report=content, judged=section(content))


def section(content: Content) -> dict[str, Any]:
    """What the part of a page on a judge needs (`judged.html.j2`)."""
    return {"content": content, "verdict": verdict(content), "points": points, "spoken": CONTROLS, "names": NAMES}


def markdown(content: Content) -> str:
    """The tables that matter, for a terminal, a pull request or an issue."""
    parts = [f"# Judged: {plain(content['title'])}", f"**{plain(verdict(content))}**"]
    if content["mode"] == "score":
        parts += ["## Scores", _score_table(content)]
        if content["pairs"]:
            parts += ["## Differences", _difference_table(content["pairs"])]
        if content["agreement"]:
            parts += ["## Agreement between judges", agreement_table(content["agreement"])]
    else:
        parts += ["## Pairs", _pair_table(content["pairs"]), _position(content)]
    parts += ["## Can the judge be trusted?", trust(content), *_control_table(content), _unscored(content)]
    for name, rows in content["shown"].items():
        if rows:
            parts += [f"## {name.capitalize()} answers", *(_quotation(row) for row in rows)]
    return "\n\n".join([*parts, "## Costs", _costs(content), sign(content)]) + "\n"


def verdict(content: Content) -> str:
    """Headline in one or two sentences; of a judge that cannot be trusted that comes first."""
    missed, found = content["unscored"], content["reliability"]
    first = f"The judge is not to be trusted: {'; '.join(found['reasons'])}. " if found["trusted"] is False else ""
    if missed["withheld"]:
        return (
            f"{first}No headline: {missed['count']:,} of {missed['verdicts']:,} verdicts ({share(missed['share'])}) "
            f"are unscored, more than {share(missed['limit'])}."
        )
    lines = _scores_in_words(content) if content["mode"] == "score" else _pairs_in_words(content)
    return first + " ".join(lines)


def trusted(content: Content | None) -> str:
    """The verdict, where the judge passed its controls and the headline stands; else nothing."""
    if content is None or not content["reliability"]["trusted"] or content["unscored"]["withheld"]:
        return ""
    names = f" ({_judges(content)})" if content["mode"] == "pairwise" else ""
    return f"By a judge{names}: {verdict(content)}"


def trust(content: Content) -> str:
    """What the controls say, in words."""
    found = content["reliability"]
    if found["trusted"] is None:
        return "Not known: there were not both nonsense and reference answers to test it with."
    if found["trusted"]:
        return "Nothing speaks against it: it rated answers that say nothing low, and references high."
    return f"No: {'; '.join(found['reasons'])}."


def points(value: float | None) -> str:
    """A score: 71.3; differences get a sign elsewhere."""
    return NOTHING if value is None else f"{value:.1f}".replace("-", "−")


def _scores_in_words(content: Content) -> list[str]:
    scored = [one for one in content["models"] if one["headline"]]
    if not scored:
        return ["Nothing was judged."]
    said = [f"{one['name']} {points(one['headline']['value'])} {_range(one['headline'])}" for one in scored]
    most = max(one["scored"] for one in scored)
    gives = "gives" if len(content["judges"]) == 1 else "give"
    lines = [f"{_judges(content)} {gives} {', '.join(said)} of 100 points on {most:,} answers."]
    for pair in content["pairs"]:
        if pair["distinguishable"]:
            above, below = (pair["a"], pair["b"]) if pair["value"] > 0 else (pair["b"], pair["a"])
            lines.append(f"{above} is rated above {below} by {points(abs(pair['value']))} points.")
        else:
            lines.append(f"{pair['a']} and {pair['b']} cannot be told apart (p {_p(pair['p_holm'])}).")
    return lines


def _judges(content: Content) -> str:
    return " and ".join(one["name"] for one in content["judges"])


def _pairs_in_words(content: Content) -> list[str]:
    lines = []
    for pair in content["pairs"]:
        if pair["rate"] is None:
            continue
        told = "" if pair["distinguishable"] else f"; they cannot be told apart (p {_p(pair['p_holm'])})"
        lines.append(
            f"{pair['a']} wins {share(pair['rate']['value'])} against {pair['b']}, ties counted half, in "
            f"{pair['decided']:,} pairs{told}."
        )
    return lines or ["Nothing was judged."]


def _p(value: float) -> str:
    found = chance(value)
    return found if found.startswith("<") else f"= {found}"


def _range(one: Mapping[str, float]) -> str:
    return f"[{points(one['low'])}, {points(one['high'])}]"


# Markdown.


def _score_table(content: Content) -> str:
    head = [
        "Model",
        "Mean score",
        f"{level(content['confidence'])} interval",
        "Median",
        "Scored",
        "Rows",
        "Spread",
        "Score and length",
    ]
    rows = []
    for one in content["models"]:
        rows.append(
            [
                plain(one["name"]),
                *_headline(one["headline"]),
                points(one["median"]),
                f"{one['scored']:,}",
                f"{one['rows']:,}",
                points(one["spread"]),
                _length(one),
            ]
        )
        rows += [[f"{plain(one['name'])}, turn {turn}", *_headline(e), *[""] * 5] for turn, e in one["turns"].items()]
    return table(head, rows)


def _headline(one: Mapping[str, float] | None) -> list[str]:
    return [points(one["value"]), _range(one)] if one else ["withheld", NOTHING]


def _length(model: Mapping[str, Any]) -> str:
    found = model["length"]["spearman"]
    return f"{metric(found['value'])} [{metric(found['low'])}, {metric(found['high'])}]" if found else NOTHING


def _difference_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        [
            f"{plain(one['a'])} − {plain(one['b'])}",
            f"{points(one['value'])} {_range(one)}",
            chance(one["p"]),
            chance(one["p_holm"]),
            f"{one['higher']:,}",
            f"{one['lower']:,}",
            f"{one['rows']:,}",
        ]
        for one in pairs
    )
    return table(["Pair", "Difference", "p", "p (Holm)", "Higher", "Lower", "Rows"], rows)


def agreement_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Correlations of each two judges."""
    rows = []
    for one in pairs:
        cells = [
            f"{metric(one[name]['value'])} [{metric(one[name]['low'])}, {metric(one[name]['high'])}]"
            if one.get(name)
            else NOTHING
            for name in NAMES
        ]
        rows.append([f"{plain(one['a'])} and {plain(one['b'])}", f"{one['rows']:,}", *cells])
    return table(["Judges", "Rows", *NAMES.values()], rows)


def _pair_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    head = ["Pair", "Won by the first", "By the second", "Ties", "Rate of the first", "p (Holm)"]
    rows = []
    for one in pairs:
        rate = one["rate"]
        said = f"{share(rate['value'])} [{share(rate['low'])}, {share(rate['high'])}]" if rate else "withheld"
        counts = (f"{one[name]:,}" for name in ("wins", "losses", "ties"))
        rows.append([f"{plain(one['a'])} and {plain(one['b'])}", *counts, said, chance(one["p_holm"])])
    return table(head, rows)


def _position(content: Content) -> str:
    found = content["position"]
    steady, first = found["consistent"], found["first_share"]
    told = f"The answer shown first won {found['first']:,} times, the second {found['second']:,} times"
    told += f" ({share(first['value'])} for the first, p {_p(found['p'])})." if first else "."
    return told + (f" Both orders gave the same verdict in {share(steady['value'])} of pairs." if steady else "")


def _control_table(content: Content) -> list[str]:
    found = content["reliability"]["controls"]
    rows = (
        [
            CONTROLS[one["control"]],
            *(_headline(one["mean"]) if one["mean"] else [NOTHING, NOTHING]),
            f"{one['wrong']:,} of {one['verdicts']:,}",
            f"{one['unscored']:,}",
        ]
        for one in found
    )
    return [table(["Control", "Mean score", "Interval", "Judged wrongly", "Unscored"], rows)] if found else []


def _unscored(content: Content) -> str:
    found = content["unscored"]
    why = "".join(f"\n- {plain(reason)}: {count:,}" for reason, count in found["reasons"].items())
    return f"Unscored: {found['count']:,} of {found['verdicts']:,} verdicts on answers ({share(found['share'])}).{why}"


def _costs(content: Content) -> str:
    found = content["costs"]
    price = f", price {found['price']:.4f}" if found["price"] is not None else ""
    return (
        f"{found['questions']:,} questions in {found['tries']:,} requests, {found['read']:,} tokens read and "
        f"{found['written']:,} written{price}."
    )


def _quotation(row: Mapping[str, Any]) -> str:
    lines = [f"- {quote(row['prompt'])}"]
    if row["reference"]:
        lines.append(f"  - reference: {quote(row['reference'])}")
    lines += [f"  - {plain(one['name'])} ({points(one['score'])}): {quote(one['response'])}" for one in row["answers"]]
    return "\n".join(lines)
