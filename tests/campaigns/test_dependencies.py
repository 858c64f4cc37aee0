"""What `make audit-deps` makes of the output of pip-audit."""

from __future__ import annotations

import json

import pytest

from tests.campaigns import dependencies

CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
VULNERABLE = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([CLEAN], 0, ["1 packages checked, 0 with"]),
        ([CLEAN, SKIPPED], 0, ["1 packages checked", "Not checked: b."]),
        ([CLEAN, SKIPPED, VULNERABLE], 1, ["c 2: CVE-1, CVE-2", "2 packages checked, 1 with"]),
        ([SKIPPED, SKIPPED], 3, ["None of 2 packages was checked"]),
        ([], 3, ["None of 0"]),
    ],
)
def test_all_skipped_is_not_free_of_vulnerabilities(packages: list[object], code: int, said: list[str]) -> None:
    found, sentence = dependencies.judge(json.dumps({"dependencies": packages}), "No known vulnerabilities found")
    assert found == code
    assert all(part in sentence for part in said)


def test_an_audit_that_failed_is_no_audit() -> None:
    assert dependencies.judge("", "Traceback\nConnectionError: no route") == (
        3,
        "The packages were not checked: ConnectionError: no route",
    )
