"""The bootstrap boundary spends what it may and not a path more."""

import math

import pytest
import torch

from evidence import limits
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.judge.bootstrap import BootstrapBoundary
from lightning_mesa.stats.intervals import Mean


def scores(n: int, seed: int = 0, mean: float = 0.5) -> torch.Tensor:
    return (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < mean).double()


def test_below_its_minimum_it_spends_and_does_not_cross():
    test = BootstrapBoundary(0.5, 0.05, looks=10)
    decision = test.update(torch.ones(999))
    assert (decision.crossed, decision.threshold, decision.look) == (False, math.inf, 1)
    assert BootstrapBoundary(0.5, 0.05, looks=10, minimum_n=999).update(torch.ones(999)).crossed


@pytest.mark.parametrize(("looks", "alpha"), [(1, 0.05), (7, 0.05), (100, 0.05), (10, 0.01)])
def test_over_all_looks_the_share_of_paths_that_cross_is_alpha(looks, alpha):
    test = BootstrapBoundary(0.5, alpha, looks=looks, minimum_n=0)
    for look in range(looks):
        test.update(scores(50, seed=look))
        assert len(test.state_dict()["crossed"]) == math.floor(alpha * 1000 * (look + 1) / looks + 1e-9)
    assert len(set(test.state_dict()["crossed"])) == round(alpha * 1000)
    assert test.update(torch.ones(50)).threshold == math.inf


def test_the_boundary_is_the_path_that_exhausts_the_budget_and_not_the_next():
    """One look, 19 paths, alpha .05: of 20 exchangeable values (19 paths and the mean) only the largest may cross."""
    draw = torch.Generator().manual_seed(3)
    data = torch.rand(500, generator=draw)
    test = BootstrapBoundary(0.5, 0.05, looks=1, minimum_n=0, paths=19, seed=4)
    threshold = test.update(data).threshold
    multipliers = torch.randn(19, 501, generator=torch.Generator().manual_seed(4))
    centered = torch.cat([data, torch.zeros(1)])
    centered = centered - centered.mean()
    largest = (multipliers @ centered / centered.norm()).max()
    assert threshold == pytest.approx(-math.log(0.5 * math.erfc(float(largest) / math.sqrt(2))), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("persistence", [0.0, 0.95])
def test_runs_whose_null_holds_keep_the_level(persistence):
    """1000 items, 10 looks, 800 runs at .05. The (b + 1)-th largest path instead of the b-th would reach .10."""
    draw = torch.Generator().manual_seed(5)
    rejected = 0
    for run in range(800):
        test = BootstrapBoundary(0.5, 0.05, looks=10, paths=199, seed=run)
        steady = torch.randn(1000, generator=draw)
        for _ in range(10):
            latent = math.sqrt(persistence) * steady
            latent = latent + math.sqrt(1 - persistence) * torch.randn(1000, generator=draw)
            if test.update((latent > 0).double()).crossed:
                rejected += 1
                break
    assert rejected / 800 <= 0.07
    assert limits(rejected, 800)[1] >= 0.03  # and it is no Bonferroni: it spends what it may


@pytest.mark.parametrize(("null_mean", "ones"), [(0.98, 990), (0.98, 993), (0.9, 930), (0.5, 550), (0.5, 560)])
def test_its_evidence_is_near_that_of_the_exact_test_for_skewed_scores_too(null_mean, ones):
    """Of 1000. With skewness left in, 993 against .98 would have p = 1e-5 instead of 7e-4."""
    scores = torch.tensor([1.0] * ones + [0.0] * (1000 - ones))
    exact = -math.log(Mean((1000.0 - ones, float(ones))).p_at_most(null_mean))
    evidence = BootstrapBoundary(null_mean, 0.05, looks=1).update(scores).log_evidence
    assert exact / 1.6 < evidence < exact + 0.5


def test_scores_that_are_all_one_are_strong_evidence_and_not_unlimited():
    """1000 of 1000 refutes a mean of .5, and not one of .999, under which it happens in more than a third of runs."""
    assert BootstrapBoundary(0.5, 0.05, looks=1).update(torch.ones(1000)).crossed
    assert not BootstrapBoundary(0.999, 0.05, looks=1).update(torch.ones(1000)).crossed
    assert not BootstrapBoundary(0.5, 0.05, looks=1).update(torch.zeros(1000)).crossed


def test_items_that_change_are_refused():
    test = BootstrapBoundary(0.5, 0.05, looks=10)
    test.update(scores(1000))
    with pytest.raises(ConfigurationError, match="same items"):
        test.update(scores(1001))


def test_an_empty_look_loses_its_budget():
    test = BootstrapBoundary(0.5, 0.05, looks=2, minimum_n=0)
    test.update(torch.ones(0))
    test.update(scores(50))
    assert len(test.state_dict()["crossed"]) == 25


def test_too_few_paths_for_the_level_are_refused():
    with pytest.raises(ConfigurationError, match="paths=1000"):
        BootstrapBoundary(0.5, 0.001, looks=10, paths=99)


def test_its_multipliers_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    BootstrapBoundary(0.5, 0.05, looks=1).update(scores(1000))
    assert torch.equal(state, torch.get_rng_state())
