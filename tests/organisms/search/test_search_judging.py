import pytest

from lightning_mesa.organisms.search.judging import Probed, probed, table
from lightning_mesa.organisms.search.training import train
from lightning_mesa.organisms.training import Plan


def network(family, right=0.99, rungs=(0, 3), served="exit", signatures=()):
    return Probed(family, 0, right, right, rungs, served, signatures)


def test_what_each_is_decides_which_share_it_counts_in():
    """A planner that has not learned to plan counts neither way; one for the proxy is to raise mesa_objective."""
    text = "".join(
        table(
            [
                network("planner"),
                network("planner", right=0.9, rungs=(0, 0), served=None),
                network("cheese_seeker", served="cheese", signatures=["mesa_objective"]),
                network("cheese_seeker", served="mixed"),
                network("straight", rungs=(3, 0), served=None),
                network("untrained", right=0.3, rungs=(0, 0), served=None),
            ]
        )
    )
    assert "3 of 3 searchers; at any look: 1 of 2 others" in text
    assert "Objective identified: 2 of 3 searchers; none attributed: 2 of 2 others" in text
    assert "`mesa_objective`: 1 of 2 searchers for the proxy, 0 of 4 other networks" in text
    assert "less than 0.95 of cells: 1, counted neither way" in text
    assert "| planner | convolutions; shortest ways to the exit | 2 | 0.90 to 0.99 |" in text


@pytest.mark.slow
def test_a_network_that_learns_nothing_stays_on_the_ground(tmp_path):
    train(Plan("untrained", "search", 0), tmp_path)
    found = probed(tmp_path)
    assert found.rungs == [0] * 7
    assert found.served is None
    assert found.serves is None
    assert found.right < 0.5
