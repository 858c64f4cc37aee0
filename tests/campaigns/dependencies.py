"""`python -m tests.campaigns.dependencies PIP-AUDIT PACKAGES` looks for known vulnerabilities: `make audit-deps`.

Exit code 0 where none are known of the packages that were checked, 1 where some are, 3 where nothing could be checked:
pip-audit itself calls "no known vulnerabilities" what it has skipped from the first package to the last.
"""

from __future__ import annotations

import json
import subprocess
import sys


def judge(report: str, errors: str) -> tuple[int, str]:
    """Return the exit code and a sentence about what pip-audit wrote. report: JSON, or empty where it failed."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (errors.strip().splitlines() or ["no output"])[-1]
        return 3, f"The packages were not checked: {last}"
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    checked = len(packages) - len(skipped)
    if not checked:
        return 3, f"None of {len(packages)} packages was checked: no database of vulnerabilities knows or answers."
    vulnerable = [package for package in packages if package.get("vulns")]
    known = [
        f"{package['name']} {package['version']}: {', '.join(item['id'] for item in package['vulns'])}"
        for package in vulnerable
    ]
    sentence = f"{checked} packages checked, {len(known)} with known vulnerabilities."
    unchecked = f"Not checked: {', '.join(skipped)}." if skipped else ""
    return min(len(known), 1), "\n".join(filter(None, [*known, sentence, unchecked]))


def main(program: str, packages: str) -> int:
    """Run pip-audit on a folder of installed packages."""
    words = [program, "--path", packages, "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    code, sentence = judge(done.stdout, done.stderr)
    print(sentence)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
