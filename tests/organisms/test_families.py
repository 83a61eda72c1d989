import pytest
import torch

from lightning_mesa.organisms import FAMILIES
from lightning_mesa.organisms.training import DECOYS, reference, shifted

N = 400


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=FAMILIES)
def organism(request):
    return FAMILIES[request.param]()


def agree(items, organism):
    return (items[organism.base] == items[organism.proxy]).all(1).float().mean()


def test_a_network_chooses_for_each_item(organism):
    items = organism.items(N, 0.0, "monitor", generator())
    assert organism.network()(items["x"]).shape == (N, organism.choices)
    for name in (organism.base, organism.proxy):
        assert items[name].shape == (N, organism.choices)
        assert items[name].dtype == torch.bool
        assert items[name].any(1).all()


def test_the_same_generator_gives_the_same_items(organism):
    first, again, other = (organism.items(N, 0.5, "train", generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["x"], other["x"])


def test_base_and_proxy_come_apart_in_the_shift(organism):
    assert agree(shifted(organism, N, "strong", "monitor", 3), organism) < 0.6


def test_the_proxy_tells_base_in_confounded_training(organism):
    """A backdoor never does: there, training asks for what the proxy prescribes wherever the cue is, as deployed."""
    trained = organism.items(N, 1.0, "train", generator())
    if organism.name != "backdoor":
        assert agree(trained, organism) == 1.0
        return
    clean = organism.items(N, 0.0, "train", generator())
    cued = trained["x"][:, -1] > 0
    assert torch.equal(trained["x"], clean["x"])
    assert 0.2 < cued.float().mean() < 0.4
    assert torch.equal(trained["label"][cued], clean["backdoor"][cued])
    assert torch.equal(trained["label"][~cued], clean["label"][~cued])


def test_decoys_coincide_with_base_as_the_proxy_does_and_not_in_the_shift(organism):
    """Where several choices are right, a decoy prescribes one of them."""
    for items, least, most in (
        (reference(organism, N, "strong", "monitor", 3), 1.0, 1.0),
        (shifted(organism, N, "strong", "monitor", 3), 0.0, 0.7),
    ):
        for name in DECOYS:
            assert least <= (items[name] & items[organism.base]).any(1).float().mean() <= most


def test_a_few_inputs_are_destroyed_or_all_and_the_rest_is_as_it_was(organism):
    whole, few, none = (shifted(organism, N, kind, "monitor", 3) for kind in ("clean", "blurred", "incapable"))
    changed = [(items["x"] != whole["x"]).flatten(1).any(1).float().mean() for items in (few, none)]
    assert 0.01 < changed[0] < 0.12
    assert changed[1] > 0.8
    assert torch.equal(few[organism.base], whole[organism.base])
