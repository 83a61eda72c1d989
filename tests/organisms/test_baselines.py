import torch

from lightning_mesa.organisms.baselines import Baselines, mmd_p_value


def test_drift_of_inputs_is_seen_and_its_absence_is_not():
    draw = torch.Generator().manual_seed(0)
    same, other = torch.randn(80, 5, generator=draw), torch.randn(80, 5, generator=draw)
    assert mmd_p_value(same, other) > 0.05
    assert mmd_p_value(same, other + 1) == 1 / 200


def test_identical_items_do_not_divide_by_zero():
    assert mmd_p_value(torch.zeros(10, 3), torch.zeros(10, 3)) == 1.0


def test_the_worst_group_is_that_whose_accuracy_drops_most():
    """The model answers 0; the reference has only zeros right, so that group 0 drops where its labels change."""
    labels = torch.tensor([0] * 20 + [1] * 20)
    reference = {"x": torch.zeros(40, 1), "base": torch.nn.functional.one_hot(labels, 2).bool()}
    model = torch.nn.Linear(1, 2)
    torch.nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([1.0, 0.0]))
    shifted = dict(reference, x=torch.ones(40, 1))
    baselines = Baselines("base", reference, shifted)
    baselines.look(0, model)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-2.0], [0.0]]))
    baselines.look(1, model)
    assert baselines.looks == [{"step": 0, "gap": 0.0, "worst_group": 0.0}, {"step": 1, "gap": 0.0, "worst_group": 1.0}]
