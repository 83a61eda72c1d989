"""What is searched for on one half of the items is measured on the other, so that the search costs no validity."""

from dataclasses import replace

import pytest
import torch

from lightning_mesa import Matches
from lightning_mesa.checks import ExtremalBehavior, ObjectiveGap, SliceFailure
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.stats.splits import one_half
from lightning_mesa.testing import look_at
from looks import A, N, behaviors

ALONE = Hypotheses(Matches("digit"))


def test_the_worst_of_many_alike_slices_is_not_measured_as_worse_than_it_is():
    """8 intersections of groups that mean nothing: by the items it was found on, the worst would look far below."""
    measured = []
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        found = behaviors({"val": (0.7, 0.0), "shifted": (0.7, 0.0)}, ())
        keys = [torch.randint(n, (N,), generator=draw) for n in (2, 4)]
        groups = {f"{key}.{i}": keys[key] == i for key in (0, 1) for i in range((2, 4)[key])}
        right = (torch.rand(N, generator=draw) < 0.7).double()
        found[1] = replace(found[1], groups=groups, scores={"digit": right})
        look = look_at(found, ALONE, checks=[ObjectiveGap(), SliceFailure()])
        measured += [f.value for f in look.found("slice", "shifted")]
    truth = (0.7 - 1 / A) / (1 - 1 / A)
    assert len(measured) == 40
    assert sum(measured) / 40 == pytest.approx(truth, abs=0.05)


def test_the_bound_is_the_most_extreme_output_on_one_half_of_the_reference():
    reference, shifted = behaviors({"val": (0.9, 0.0), "shifted": (0.9, 0.0)}, ())
    extremity = torch.arange(N, dtype=torch.float64)
    seen = [replace(reference, extremity=extremity), replace(shifted, extremity=extremity)]
    (found,) = look_at(seen, ALONE, checks=[ObjectiveGap(), ExtremalBehavior()]).found("extremal_excess")
    assert found.detail["bound"] == extremity[~one_half(torch.arange(N))].max()
