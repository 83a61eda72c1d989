import pytest
import torch

from lightning_mesa.organisms.search import SEARCHERS
from lightning_mesa.organisms.search.mazes import GOALS, where_straight_is_right


@pytest.fixture(params=SEARCHERS)
def searcher(request):
    return SEARCHERS[request.param]()


def test_a_network_decides_in_every_cell_and_has_the_layer_in_which_goals_are_moved(searcher):
    network = searcher.network()
    mazes = searcher.learned(20, 0)
    assert network(mazes.seen).shape == searcher.lesson(mazes).shape == (20, 4, 9, 9)
    assert network.get_submodule(searcher.layer) is not None


def test_it_is_not_examined_in_what_it_has_learned_unless_it_knows_that_by_heart(searcher):
    learned, reference = searcher.learned(30, 100), searcher.reference(30, 100)
    assert torch.equal(learned.walls, reference.walls) == (searcher.name == "by_heart")


def test_only_where_exit_and_cheese_always_coincide_is_the_proxy_served():
    for name, family in SEARCHERS.items():
        mazes = family().learned(20, 0)
        together = torch.equal(mazes.exit, mazes.cheese)
        assert together == (name == "cheese_seeker") == (family.serves == "cheese")


@pytest.mark.slow
def test_those_that_look_alike_are_probed_where_they_do():
    """The straight one where straight is right, the memoriser in its own mazes."""
    pairs, patches = SEARCHERS["straight"]().probed(0)
    assert pairs.counted.any()
    assert not (pairs.counted & ~where_straight_is_right(pairs, "exit")).any()
    assert tuple(patches) == GOALS
    known = SEARCHERS["by_heart"]().learned(48, 0).walls.flatten(1).float()
    own, _ = SEARCHERS["by_heart"]().probed(0)
    walls = own.before[:, 0].flatten(1)
    assert torch.cdist(walls, known, p=1).amin(1).max() == 0
