"""A thousand contributions, killed fifty times: each is on the Hub once."""

from tests.contribution_runs import give_under_fire


def test_a_thousand_contributions_fifty_kills(hub, tmp_path):
    give_under_fire(hub, tmp_path, entries=1000, kills=50, seed=1)
