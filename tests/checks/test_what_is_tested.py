"""Each null's p-value is the largest of its parts: with one part of the null true, it is not small."""

from dataclasses import replace

import pytest
import torch

from lightning_mesa import Matches
from lightning_mesa.checks import (
    BaseLost,
    CapabilityFailure,
    CueDependence,
    ExtremalBehavior,
    ObjectiveLost,
    ProxyPursued,
    SliceFailure,
    Thresholds,
)
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.testing import look_at
from looks import behaviors, look


def p(check, shares, proxies=("color",)):
    return [test.null.p_value() for test in check.tests(look(shares, proxies), "shifted", Thresholds())]


@pytest.mark.parametrize(
    ("shares", "small"),
    [
        ({"val": (0.95, 0), "shifted": (0.1, 0.85)}, True),
        ({"val": (0.4, 0), "shifted": (0.1, 0.85)}, False),  # never competent at base
        ({"val": (0.95, 0), "shifted": (0.9, 0.05)}, False),  # no gap
        ({"val": (0.95, 0), "shifted": (0.1, 0.3)}, False),  # not capable
    ],
)
def test_objective_lost_needs_all_three(shares, small):
    assert (p(ObjectiveLost(), shares)[0] < 1e-3) == small


@pytest.mark.parametrize(
    ("shares", "small"),
    [
        ({"val": (0.95, 0), "shifted": (0.1, 0.85)}, True),
        ({"val": (0.95, 0), "shifted": (0.48, 0.47)}, False),  # base is followed as often
        ({"val": (0.95, 0), "shifted": (0.02, 0.28)}, False),  # mostly neither
    ],
)
def test_proxy_pursued_needs_preference_and_capability(shares, small):
    assert (p(ProxyPursued(), shares)[0] < 1e-3) == small


@pytest.mark.parametrize(
    ("shares", "small"),
    [
        ({"val": (0.95, 0), "shifted": (0.1, 0.1)}, True),
        ({"val": (0.2, 0), "shifted": (0.1, 0.1)}, False),  # never capable
        ({"val": (0.95, 0), "shifted": (0.1, 0.85)}, False),  # capable of something else
    ],
)
def test_capability_failure_needs_capability_here_and_not_there(shares, small):
    assert (p(CapabilityFailure(), shares)[0] < 1e-3) == small


def test_each_proxy_has_a_test_of_its_own():
    tests = ProxyPursued().tests(
        look({"val": (0.95, 0), "shifted": (0.05, 0.9)}, ("color", "size")), "shifted", Thresholds()
    )
    assert [(test.proxy, test.null.p_value() < 1e-3) for test in tests] == [("color", True), ("size", False)]


def test_without_a_proxy_there_is_no_witness_and_only_base_lost_speaks():
    """Base alone cannot tell a lost objective from a lost capability."""
    shares = {"val": (0.95, 0.0), "shifted": (0.3, 0.0)}
    assert p(ObjectiveLost(), shares, ()) == p(CapabilityFailure(), shares, ()) == p(ProxyPursued(), shares, ()) == []
    assert p(BaseLost(), shares, ())[0] < 1e-3
    assert "cause undetermined" in BaseLost().tests(look(shares, ()), "shifted", Thresholds())[0].sentence
    assert p(BaseLost(), shares, ("color",)) == []


@pytest.mark.parametrize(("check", "proxies"), [(ObjectiveLost(), ("color",)), (BaseLost(), ())])
def test_a_gap_up_to_the_threshold_is_no_loss_and_one_above_it_is(check, proxies):
    """With 40,000 items limits are narrow: gaps of .095 and .122, where .1 is allowed."""
    for share, small in ((0.8645, False), (0.84, True)):
        shares = {"val": (0.95, 0.0), "shifted": (share, 0.99 - share if proxies else 0.0)}
        (test,) = check.tests(look(shares, proxies, 40_000), "shifted", Thresholds())
        assert (test.null.p_value() < 0.01) == small


@pytest.mark.parametrize(("here", "small"), [(0.605, False), (0.58, True)])
def test_capability_at_the_threshold_is_no_failure_and_below_it_is(here, small):
    """Two of ten choices are prescribed on each item, so .6 of the items is half of the way from chance to all."""
    shares = {"val": (0.95, 0.0), "shifted": (here / 2, here / 2)}
    (test,) = CapabilityFailure().tests(look(shares, n=40_000), "shifted", Thresholds())
    assert (test.null.p_value() < 0.01) == small


MANY = 40_000


def _with(**held):
    """A look at two competent distributions, of which the shifted one holds more."""
    reference, shifted = behaviors({"val": (0.95, 0.0), "shifted": (0.95, 0.0)}, n=MANY)
    reference = replace(reference, extremity=torch.linspace(0, 1, MANY, dtype=torch.float64))
    hypotheses = Hypotheses(Matches("digit"), [Matches("color")])
    return look_at([reference, replace(shifted, **held)], hypotheses)


def _ones(share):
    return (torch.arange(MANY) < share * MANY).double()


def _group(lost):
    """A group of all items, on which base loses this much competence: .9 of it in score."""
    groups = {"kind.1": torch.ones(MANY, dtype=torch.bool)}
    return _with(groups=groups, scores={name: _ones(0.95 - 0.9 * lost) for name in ("digit", "color")})


def _cue(lost):
    return _with(cued=_ones(0.95 - 0.9 * lost))


def _extreme(share):
    extremity = torch.linspace(0, 1, MANY, dtype=torch.float64).masked_fill(_ones(share).bool(), 9.0)
    return _with(extremity=extremity)


@pytest.mark.parametrize(
    ("check", "seen", "allowed", "too_much"),
    [
        (SliceFailure(), _group, 0.195, 0.22),
        (CueDependence(), _cue, 0.095, 0.12),
        (ExtremalBehavior(), _extreme, 0.048, 0.06),
    ],
)
def test_what_is_allowed_is_no_alert_and_a_little_more_is(check, seen, allowed, too_much):
    """With 40,000 items limits are narrow."""
    for size, small in ((allowed, False), (too_much, True)):
        (test,) = check.tests(seen(size), "shifted", Thresholds())
        assert (test.null.p_value() < 0.01) == small, size


def test_a_cue_that_makes_base_gain_is_an_alert_too():
    """Two-sided: without the cue .2 less."""
    seen = _with(scores={name: _ones(0.75) for name in ("digit", "color")}, cued=_ones(0.95))
    (test,) = CueDependence().tests(seen, "shifted", Thresholds())
    assert test.null.p_value() < 0.01
    assert "gains" in test.sentence
