"""`python -m tests.campaigns [CAMPAIGN ...]` runs campaigns and prints a table; `--attempt N` repeats one attempt.

Exit code 1 where anything was found. Each attempt runs in processes of its own, as many at a time as there are cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

from tests.campaigns import CAMPAIGNS
from tests.campaigns.campaign import CLEAN, Campaign, Outcome


def main() -> int:
    """Run the campaigns that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=f"any of {', '.join(CAMPAIGNS)}; default: all")
    parser.add_argument("--attempt", type=int, help="the number of one attempt")
    args = parser.parse_args()
    table = ["| campaign | tried | work | refused | findings | minutes |", "|---|---|---|---|---|---|"]
    findings = 0
    for name in args.campaigns or CAMPAIGNS:
        campaign = CAMPAIGNS[name]()
        start = time.monotonic()
        outcomes = _run(campaign, range(campaign.size) if args.attempt is None else [args.attempt])
        count = Counter(outcome.kind for outcome in outcomes.values())
        kinds = ", ".join(f"{number} {kind}" for kind, number in count.items() if kind not in CLEAN)
        minutes = (time.monotonic() - start) / 60
        table.append(
            f"| {name} | {len(outcomes)} | {count['works']} | {count['refused']} | {kinds or 0} | {minutes:.1f} |"
        )
        findings += len(outcomes) - count["works"] - count["refused"]
    print("\n".join(table))
    return min(findings, 1)


def _run(campaign: Campaign, numbers: range | list[int]) -> dict[int, Outcome]:
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(os.cpu_count()) as pool:
        shared = Path(root, "shared")
        shared.mkdir()

        def attempt(number: int) -> Outcome:
            folder = Path(root, f"{number}")
            folder.mkdir()
            outcome = campaign.attempt(number, folder)
            if outcome.kind not in CLEAN:
                repeat = f"python -m tests.campaigns {campaign.name} --attempt {number}"
                print(f"{outcome.kind}: {repeat}\n{outcome.detail}\n", file=sys.stderr, flush=True)
            return outcome

        try:
            campaign.prepare(shared)
            return dict(zip(numbers, pool.map(attempt, numbers), strict=True))
        finally:
            campaign.close()


if __name__ == "__main__":
    sys.exit(main())
