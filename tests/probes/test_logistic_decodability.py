"""Logistic probes find what scikit-learn's regression does, on a sample that does not depend on who has read it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_decodability import N, behavior

from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import logistic_decodability
from lightning_mesa.probes.decodability import Items
from lightning_mesa.probes.logistic_decodability import LogisticDecodability, Sample, Split
from lightning_mesa.records import Behavior
from lightning_mesa.stats import logistic
from lightning_mesa.stats.logistic import Logistic, base_rate


def probe_of(*behaviors):
    probe = LogisticDecodability("block")
    probe.check(Subject(torch.nn.ModuleDict({"block": torch.nn.Identity()})))
    for one in behaviors:
        probe.update(one)
    return probe


def run(*behaviors):
    return probe_of(*behaviors).run(None)


def data(n=300, d=10, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(n, d, generator=draw) + 7
    z = (x - 7) @ torch.randn(d, 3, generator=draw) / 3 + torch.tensor([0.0, -2.0, 1.0])
    return x, torch.rand(n, 3, generator=draw) < z.sigmoid()


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_weights_are_those_of_scikit_learn(penalty):
    x, y = data()
    weights, intercepts = Logistic(x).fit(y, penalty, tolerance=1e-16)
    mean, scale = x.double().mean(0).numpy(), x.double().std(0, correction=0).numpy()
    for target in range(y.shape[1]):
        known = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000)
        known.fit((x.double().numpy() - mean) / scale, y[:, target].numpy())
        of_plain = known.coef_[0] / scale
        assert np.abs(weights[:, target].numpy() - of_plain).max() < 1e-5
        assert abs(float(intercepts[target]) - (known.intercept_[0] - mean @ of_plain)) < 1e-4


def test_the_usual_tolerance_changes_no_loss_by_a_thousandth():
    x, y = data()
    split = Split(x, torch.arange(300) < 200, torch.arange(300) >= 200)
    losses = [
        split._loss(split._features @ w + b, y)
        for w, b in (split._regression.fit(y[:200], 1e-3, tolerance) for tolerance in (logistic.TOLERANCE, 1e-18))
    ]
    assert torch.allclose(*losses, rtol=1e-3)


def test_constant_features_and_choices_that_are_never_right_do_no_harm():
    x, y = data()
    weights, intercepts = Logistic(torch.cat([x, torch.ones(300, 1)], 1)).fit(torch.zeros_like(y), 0.1)
    assert weights.isfinite().all()
    assert torch.allclose(intercepts, base_rate(torch.zeros_like(y)).logit())


def test_what_a_layer_has_learned_is_decodable():
    (result,) = run(behavior())
    assert result.value > 0.3
    assert result.positive
    assert (result.layer, result.objective) == ("block", "y")
    assert result.detail["compression"] > 0.1
    assert result.detail["selectivity"] == pytest.approx(
        result.detail["explained"] - result.detail["explained_null"], abs=1e-12
    )
    assert "selectivity_seen" not in result.detail  # each item is its own group


@pytest.mark.parametrize("known", ["untrained", "input_"])
def test_what_is_there_without_learning_does_not_count(known):
    (result,) = run(behavior(**{known: 1.0}))
    assert result.value < 0.1
    assert not result.positive


@pytest.mark.slow
def test_chance_is_rarely_taken_for_decodable():
    positive = sum(run(behavior(120, seed=seed, layer=0.0))[0].positive for seed in range(10))
    assert positive <= 1


def in_groups(layer):
    """20 items of each of 20 groups, with a label and a signature of its own; the layer tells one of them."""
    groups = torch.arange(N) // 20
    label = torch.randint(4, (N // 20,), generator=torch.Generator().manual_seed(3))[groups]
    one = behavior(labels=label)
    own = torch.randn(N // 20, 20, generator=torch.Generator().manual_seed(4))[groups] + 0.01 * torch.randn(N, 20)
    block = {"label": one.activations["block"], "signature": own}[layer]
    return Behavior(**{**vars(one), "activations": {"block": block}, "ids": groups})


def test_selectivity_is_lost_where_groups_can_be_learned_by_heart():
    (of_label,), (of_signature,) = run(in_groups("label")), run(in_groups("signature"))
    assert of_label.detail["selectivity_seen"] > 0.3
    assert abs(of_signature.detail["selectivity_seen"]) < 0.1
    assert not of_signature.positive


def test_two_processes_find_what_one_does(monkeypatch):
    monkeypatch.setattr(logistic_decodability, "KEPT", 150)
    first, second = behavior(200, seed=1), behavior(200, seed=2, first=200)
    whole = run(first, second)[0]
    two = LogisticDecodability("block")
    two.gathered([probe_of(part).accumulated() for part in (second, first)])
    (result,) = two.run(None)
    assert (result.value, result.low, result.p, result.n) == (whole.value, whole.low, whole.p, 150)


def test_memory_does_not_grow_with_the_number_of_items():
    def sample(first):
        items = torch.arange(first, first + 3000)
        read = Items(items, items, {"y": torch.zeros(3000, 2).bool()}, {"block": torch.randn(3000, 4)}, 0)
        return Sample(read, "block", with_permutations=False)

    held = sample(0).first()
    for start in range(3000, 15_000, 3000):
        held = held + sample(start)
    assert len(held.of.items) == len(held.features) == logistic_decodability.KEPT
    assert held.of.items.float().mean() == pytest.approx(7500, abs=400)  # of all, not of the first


@pytest.mark.parametrize(
    ("one", "status"),
    [
        (behavior(8), "underpowered"),
        (behavior(labels=torch.zeros(N).long()), "not_applicable"),
    ],
)
def test_too_little_has_a_status(one, status):
    (result,) = run(one)
    assert (result.status, result.value) == (status, None)
