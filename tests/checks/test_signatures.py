"""Each signature's p-value is the largest of its parts: with one part of the null true, it is not small."""

import pytest
import torch
from lightning_mesa.checks.signatures import BaseLost, CapabilityFailure, ObjectiveLost, ProxyPursued, Thresholds
from torch.nn import functional

from lightning_mesa.checks import MEASURES, Stamp
from lightning_mesa.checks.look import Look
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.matches import Matches
from lightning_mesa.records import Behavior

A, N = 10, 400


def look(shares: dict[str, tuple[float, float]], proxies: tuple[str, ...] = ("color",)) -> Look:
    """A look at 400 items per distribution of which the given shares follow base and the (first) proxy."""
    hypotheses = Hypotheses(Matches("digit"), [Matches(proxy) for proxy in proxies])
    measures = [measure(hypotheses) for measure in MEASURES]
    for where, (by_base, by_proxy) in shares.items():
        base = torch.arange(N) % A
        targets = {"digit": base} | {
            name: base if where == "val" else (base + 1 + i) % A for i, name in enumerate(proxies)
        }
        chosen = (base + 5) % A
        order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
        k, m = round(by_base * N), round(by_proxy * N)
        chosen[order[:k]] = base[order[:k]]
        if proxies:
            chosen[order[k : k + m]] = targets[proxies[0]][order[k : k + m]]
        behavior = Behavior(
            distribution=where,
            n=N,
            items=torch.arange(N),
            scores={name: (chosen == target).double() for name, target in targets.items()},
            binary=frozenset(targets),
            prescribed={name: functional.one_hot(target, A).bool() for name, target in targets.items()},
            uniform_scores={},
            chosen=chosen,
            groups={},
            ids=None,
        )
        for measure in measures:
            measure.update(behavior)
    stamp = Stamp(3, 1, {where: "reference" if where == "val" else "shifted" for where in shares})
    findings = []
    for measure in measures:
        findings += measure.compute(stamp, findings)
    return Look.of(findings)


def p(signature, shares, proxies=("color",)):
    return [test.null.p_value() for test in signature.tests(look(shares, proxies), "shifted", Thresholds())]


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
