"""Each null's p-value is the largest of its parts: with one part of the null true, it is not small."""

import pytest

from lightning_mesa.checks import BaseLost, CapabilityFailure, ObjectiveLost, ProxyPursued, Thresholds
from looks import look


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
        ({"val": (0.95, 0), "shifted": (0.1, 0.16)}, False),  # mostly neither
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
