"""A seeded sample of every campaign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns import CAMPAIGNS
from tests.campaigns.campaign import CLEAN, Campaign


@pytest.fixture(scope="module", params=CAMPAIGNS.values(), ids=list(CAMPAIGNS))
def campaign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    prepared: Campaign = request.param()
    try:
        prepared.prepare(tmp_path_factory.mktemp(prepared.name))
        yield prepared
    finally:
        prepared.close()


def test_a_sample_of_the_campaign_finds_nothing(campaign: Campaign, tmp_path: Path) -> None:
    findings = {}
    for number in campaign.sampled():
        folder = tmp_path / f"{number}"
        folder.mkdir()
        outcome = campaign.attempt(number, folder)
        if outcome.kind not in CLEAN:
            findings[number] = outcome
    assert findings == {}
