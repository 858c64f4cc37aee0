"""Audits of odd data, reviews that people edited, kills, broken disks, damaged and taken folders."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from tests import conftest
from tests.campaigns import audit_data, damages, kills, review_edits
from tests.campaigns.audit_data import SCRIPT, AuditData
from tests.campaigns.campaign import CLEAN, Campaign, Outcome, Result, execute, prepare
from tests.campaigns.commands import Writer
from tests.campaigns.disk_faults import DiskFaults
from tests.campaigns.kills import Contents, Kills, Victim
from tests.campaigns.malformed_data import CONTROLS

QUICK = ("--method", "linear", "bootstrap_samples=100", "linear.min_df=1")
CURVE = ("--learning-curve", "--methods", "linear", "--seeds", "1,2")
BEGUN = ("audit", "rows.csv", *QUICK, *CURVE, "--unlabelled", "pool.csv", "--output", "audit")
APPLIED = ("audit", "--apply", "review.csv", "rows.csv", "--output", "out.csv")
OPTIONS = ((), (), ("--cleaning-gain",), ("--review-jsonl",), ("--unlabelled", "rows.csv"), CURVE, ("--json",))
LIBRARY = re.compile(r"\w*Warning: .*")
REPEATED = "this part of the learning curve is trained again"
ENCODINGS = ("utf-8", "utf-8-sig", "cp1252", "utf-16")
RESUMED = ("audit", "--resume", "audit")


class Audits(Campaign):
    """An audit, or a review that is applied, under six kinds of attack in turn."""

    name = "audits"
    size = 140
    sample = 4

    def sampled(self) -> list[int]:
        """Return one attempt of each kind that takes little time."""
        return [0, 3, 6, 9]

    def prepare(self, folder: Path) -> None:
        csv.field_size_limit(2**31 - 1)  # for the reading of very long texts
        rows = audit_data.plain(Random(0), _Disks.rows)
        conftest.write_csv(folder / "rows.csv", [(row["text"], row["label"]) for row in rows])
        conftest.write_csv(folder / "pool.csv", [(f"{row['text']} again", "") for row in rows[:20]])
        prepare(*BEGUN, folder=folder)
        self.review = [row | {"decision": "keep"} for row in _table(folder / "audit" / "review.csv")]
        assert len(self.review) > 4
        (folder / "review.csv").write_bytes(review_edits.saved(self.review))
        self.shared = folder
        self.kills, self.disks = _Kills(folder), _Disks(folder)

    def attempt(self, number: int, folder: Path) -> Outcome:
        turn, place = divmod(number, 10)
        if place < 6:  # three of odd data, three of edited reviews
            return (self._data, self._review)[place // 3](3 * turn + place % 3, folder)
        return (self._damage, self._killed, self._disk, self._folder)[place - 6](turn, folder)

    def _data(self, number: int, folder: Path) -> Outcome:
        """Audit odd data, and apply the review without a decision, which has to change nothing."""
        random = self.random(number)
        data = audit_data.written(random, number, folder)
        words = ("audit", data.path.name, *QUICK, *random.choice(OPTIONS), *data.words, "--output", "audit")
        before = data.path.read_bytes()
        result = execute(*words, folder=folder, seconds=60)
        told = f"{data.kind}: {' '.join(words)}\n{result.stderr[-1500:]}"
        if problem := _problem(result, folder, data):
            return Outcome(problem.kind, f"{problem.detail}: {told}")
        if data.path.read_bytes() != before:
            return Outcome("silent", f"the data has changed: {told}")
        if result.exit_code == 0 and (folder / "audit" / "review.csv").exists():
            again = execute(
                "audit", "--apply", "audit/review.csv", "--output", f"again{data.path.suffix}", folder=folder
            )
            if again.outcome.kind != "works":
                return Outcome("silent", f"{again.stderr[-1500:]}\n{told}")
            if _cells(folder / f"again{data.path.suffix}") != _cells(data.path) and "left out" not in again.stderr:
                return Outcome("silent", f"an empty review changes the data: {told}")
        return Outcome("works" if result.exit_code == 0 else "refused")

    def _review(self, number: int, folder: Path) -> Outcome:
        """Apply a review that was edited: as it says, or not at all."""
        random = self.random(number)
        for name in ("rows.csv", "pool.csv"):
            shutil.copy(self.shared / name, folder)
        labels = sorted({row["label"] for row in _table(folder / "rows.csv")})
        rows = [
            row | {"decision": random.choice(["", "keep", "drop", "relabel"]), "new_label": random.choice(labels)}
            for row in self.review
        ]
        expected = _applied(_table(folder / "rows.csv"), rows)
        forms = random.sample(list(review_edits.FORMS), random.randint(0, 3))
        wrong = random.choice(list(review_edits.WRONG)) if number % 3 == 1 else ""
        if wrong:
            rows = review_edits.WRONG[wrong](rows, random)
        for form in forms:
            rows = review_edits.FORMS[form](rows, random)
        how = [random.choice(options) for options in (",;\t", ["\n", "\r\n"], ENCODINGS)]
        content = review_edits.saved(rows, *how)
        if number % 9 == 2:
            wrong = random.choice(list(review_edits.OTHER_FILES))
            content = review_edits.OTHER_FILES[wrong]
        name = random.choice(["review.xlsx", "review.ods", "review"]) if number % 15 == 3 else "review.csv"
        (folder / name).write_bytes(content)
        result = execute("audit", "--apply", name, "rows.csv", "--output", "out.csv", folder=folder)
        told = f"{forms}, {wrong or 'as it says'}, {how}: exit code {result.exit_code}\n{result.stderr[-1500:]}"
        if result.outcome.kind not in CLEAN:
            return Outcome(result.outcome.kind, told)
        if (result.exit_code == 0) == bool(wrong or name != "review.csv"):
            return Outcome("silent", told)
        if result.exit_code:
            is_named = name in result.stderr and "\n  do:" in result.stderr
            is_left = not list(folder.glob("out.*")) and not list(folder.glob(".*.partial"))
            return Outcome("refused" if is_named and is_left else "unclear" if is_left else "silent", told)
        return Outcome("works") if _table(folder / "out.csv") == expected else Outcome("silent", told)

    def _damage(self, number: int, folder: Path) -> Outcome:
        """Resume an audit in whose folder a file is damaged, or apply its review."""
        random = self.random(number)
        for name in ("rows.csv", "pool.csv", "review.csv"):
            shutil.copy(self.shared / name, folder)
        audit = Path(shutil.copytree(self.shared / "audit", folder / "audit"))
        expected = kills.contents(audit)
        read = [audit / "plan.json", audit / "recipe.yaml", *sorted(audit.glob("learning_curve/*/*.json"))]
        file = random.choice(read)
        kind = random.choice([*damages.BYTES, *damages.JSON, "missing", "a folder"])
        if not damages.damaged(file, file, kind, random):
            return Outcome("works")
        result = execute(*RESUMED, folder=folder, seconds=60)
        told = f"{file.relative_to(folder)}: {kind}: exit code {result.exit_code}\n{result.stderr[-1500:]}"
        if result.outcome.kind not in CLEAN:
            return Outcome(result.outcome.kind, told)
        is_score = file.parent.name == "linear"
        if result.exit_code:
            is_clear = file.name in result.stderr and "\n  do:" in result.stderr
            return Outcome("refused" if is_clear and (not is_score or kind == "a folder") else "unclear", told)
        if kills.contents(audit) != expected:
            return Outcome("silent", told)
        is_told = is_score and (REPEATED in result.stderr or kind == "missing")
        return Outcome("works" if is_told else "silent", told)

    def _killed(self, number: int, folder: Path) -> Outcome:
        return self.kills.attempt(number % self.kills.size, folder)

    def _disk(self, number: int, folder: Path) -> Outcome:
        return self.disks.attempt(number, folder)

    def _folder(self, number: int, folder: Path) -> Outcome:
        """Audit into a folder that is taken, is not one, or is wanted by three audits at once."""
        random = self.random(number)
        shutil.copy(self.shared / "rows.csv", folder)
        words = ("audit", "../rows.csv", *QUICK, "--output", "../out")
        FOLDERS[list(FOLDERS)[number % len(FOLDERS)]](folder / "out")
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        places = [folder / f"process-{n}" for n in range(random.choice([1, 3]))]
        for place in places:
            place.mkdir()
        with ThreadPoolExecutor(len(places)) as pool:
            results = list(pool.map(lambda place: execute(*words, folder=place, seconds=60), places))
        told = "\n".join(f"{number}: {result.exit_code} {result.stderr[-500:]}" for result in results)
        if bad := [result.outcome for result in results if result.outcome.kind not in CLEAN]:
            return bad[0]
        if lost := [path for path, content in before.items() if not path.is_file() or path.read_bytes() != content]:
            return Outcome("silent", f"lost {lost}: {told}")
        wrote = sum(result.exit_code == 0 for result in results)
        if wrote > 1 or (wrote == 0 and len(before) == 1 and not (folder / "out").is_symlink()):
            return Outcome("silent", f"{wrote} audits wrote: {told}")
        if any(result.exit_code and "\n  do:" not in result.stderr for result in results):
            return Outcome("unclear", told)
        if half := kills.halves(folder) if wrote else []:
            return Outcome("silent", f"half: {half}: {told}")
        return Outcome("works" if wrote else "refused")


FOLDERS: dict[str, Callable[[Path], object]] = {
    "new": lambda path: None,
    "empty": Path.mkdir,
    "a file": lambda path: path.write_text("mine"),
    "full": lambda path: [path.mkdir(), (path / "notes.txt").write_text("mine")],
    "a recipe": lambda path: [path.mkdir(), (path / "recipe.yaml").write_text("seed: 1\n")],
    "an audit": lambda path: [path.mkdir(), (path / "plan.json").write_text("{}")],
    "a loop": lambda path: path.symlink_to(path),
}


class _Kills(Kills):
    """The audit and the review, killed."""

    name = "audits-killed"
    victims: ClassVar[Mapping[str, Victim]] = {
        "audit": Victim(BEGUN, again=kills.resumption("audit", "audit", "plan.json")),
        "apply": Victim((*APPLIED, "--overwrite"), before={"out.csv": "text,label\nold,old\n"}),
    }
    size = 10 * 2

    def __init__(self, shared: Path) -> None:
        self.files, self.whole = shared, {}

    def _set_up(self, victim: Victim, folder: Path) -> Contents:
        for name in ("rows.csv", "pool.csv", "review.csv"):
            shutil.copy(self.files / name, folder)
        for name, content in (victim.before or {}).items():
            (folder / name).write_text(content)
        return kills.contents(folder)


class _Disks(DiskFaults):
    """The audit and the review, on a disk that fails."""

    name = "audits-on-disks"
    writers: ClassVar[Mapping[str, Writer]] = {
        "audit": Writer(("audit", "rows.csv", *QUICK, *CURVE, "--output", "OUT")),
        "apply": Writer(("audit", "--apply", "review.csv", "rows.csv", "--output", "OUT"), suffix=".jsonl"),
    }

    rows = 150

    def __init__(self, shared: Path) -> None:
        self.shared = shared

    def begin(self, disk: Path, writer: Writer) -> None:
        for name in ("rows.csv", "pool.csv", "review.csv"):
            shutil.copy(self.shared / name, disk)


def _problem(result: Result, folder: Path, data: AuditData) -> Outcome | None:
    """Return what is wrong with an audit of odd data by itself."""
    if result.outcome.kind not in CLEAN:
        return result.outcome
    if said := LIBRARY.search(result.stderr):
        return Outcome("unclear", f"a library warns: {said[0]}")
    if said := CONTROLS.search(result.stdout + result.stderr):
        return Outcome("unclear", f"the control character {said[0]!r} reaches the terminal")
    audit = folder / "audit"
    if result.exit_code:
        if not ("error:" in result.stderr and "\n  do:" in result.stderr):
            return Outcome("unclear", "no way out")
        return Outcome("leftover", "a folder that blocks") if (audit / "plan.json").exists() else None
    if half := kills.halves(audit):
        return Outcome("silent", f"half: {half}")
    if SCRIPT in (audit / "report.html").read_text():
        return Outcome("silent", "a script in the page")
    splits: dict[str, Any] = json.loads((audit / "audit.json").read_text())["data"]["splits"]
    rows = sum(split["rows"] for split in splits.values())
    if data.is_whole and "split.leaks=remove" not in data.words and rows != len(data.rows):
        return Outcome("silent", f"{rows} rows of {len(data.rows)}")
    return None


def _table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _cells(file: Path) -> list[Any]:
    """Return the cells of a file, read without the project."""
    if file.suffix == ".csv":
        return _table(file)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def _applied(data: list[dict[str, str]], review: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the data with the decisions, made without the project."""
    by_id = {row["id"]: row for row in review}
    after = []
    for number, row in enumerate(data, 2):
        decided = by_id.get(f"rows.csv:{number}", {"decision": ""})
        if decided["decision"] == "relabel":
            row = row | {"label": decided["new_label"]}
        if decided["decision"] != "drop":
            after.append(row)
    return after
