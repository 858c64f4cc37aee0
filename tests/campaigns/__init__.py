"""Campaigns that try to break tunesmith: `make campaign` runs all of them, the test suite a small sample."""

from tests.campaigns.audits import Audits
from tests.campaigns.campaign import Campaign
from tests.campaigns.damaged_runs import DamagedRuns
from tests.campaigns.disk_faults import DiskFaults
from tests.campaigns.kills import Kills
from tests.campaigns.leaks import Leaks
from tests.campaigns.malformed_data import MalformedData
from tests.campaigns.recipes import Recipes
from tests.campaigns.secrets import Secrets
from tests.campaigns.server_fuzz import ServerFuzz
from tests.campaigns.templates import Templates
from tests.campaigns.writers import Writers

CAMPAIGNS: dict[str, type[Campaign]] = {
    campaign.name: campaign
    for campaign in (
        Recipes,
        MalformedData,
        DamagedRuns,
        Audits,
        DiskFaults,
        Writers,
        ServerFuzz,
        Templates,
        Secrets,
        Kills,
        Leaks,
    )
}
