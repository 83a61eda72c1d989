"""A band holds at every look of a run together; measured over runs."""

import json
import math

import pytest
import torch

from evidence import limits
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.judge.bands import RunningBand, spent_limits
from lightning_mesa.stats.competence import Competence
from lightning_mesa.stats.intervals import Mean, tally
from quick import quick

LOOKS, ALPHA = 30, 0.05


def reused(binary: bool, means: list[float], draw: torch.Generator) -> list[Mean]:
    """The mean at each look of 100 items that are seen again, their latent values changing slowly."""
    latent = torch.randn(100, generator=draw)
    found = []
    for mean in means:
        latent = 0.8 * latent + 0.6 * torch.randn(100, generator=draw)
        below = torch.special.ndtr(latent)
        scores = (below < mean).double() if binary else below.double()
        found.append(Mean(tuple(tally(scores, binary=binary).tolist())))
    return found


@pytest.mark.parametrize(
    ("binary", "runs"),
    [(True, 100), (False, 8), *(pytest.param(*row, marks=pytest.mark.slow) for row in ((True, 400), (False, 40)))],
)
def test_on_reused_items_the_band_covers_every_looks_mean(binary, runs):
    """And pointwise limits miss somewhere in more than 5 % of runs."""
    draw = torch.Generator().manual_seed(0)
    means = [0.5] * LOOKS if not binary else [0.3 + 0.4 * t / LOOKS for t in range(LOOKS)]
    missed = pointwise = 0
    for _ in range(runs):
        found = reused(binary, means, draw)
        bands = [spent_limits(estimate, ALPHA, t, LOOKS) for t, estimate in enumerate(found, 1)]
        missed += any(not low <= mean <= high for (low, high), mean in zip(bands, means, strict=True))
        points = [estimate.limits(1 - ALPHA) for estimate in found] if binary else []
        pointwise += any(not low <= mean <= high for (low, high), mean in zip(points, means, strict=False))
    assert missed / runs <= ALPHA
    assert not binary or limits(pointwise, runs)[0] > ALPHA


def test_the_level_is_split_by_the_spending_weights():
    mean = Mean((40.0, 160.0))
    assert spent_limits(mean, 0.05, look=3, looks=100) == (mean.lower(0.05 / 200), mean.upper(0.05 / 200))
    assert spent_limits(mean, 0.05, look=3, looks=None) == (mean.lower(0.05 / 24), mean.upper(0.05 / 24))


def test_after_the_planned_looks_nothing_is_claimed():
    assert spent_limits(Mean((40.0, 160.0)), 0.05, look=101, looks=100) == (0.0, 1.0)
    bounded = Mean(tuple(tally(torch.linspace(0.2, 0.7, 50), binary=False).tolist()))
    assert spent_limits(bounded, 0.05, look=101, looks=100) == pytest.approx((0.0, 1.0), abs=1e-8)


def test_competence_has_a_band_too():
    competence = Competence(Mean((10.0, 90.0)), chance=0.1, ceiling=1.0)
    low, high = spent_limits(competence, 0.05, look=1, looks=20)
    assert low < competence.value < high


def constant(_: float) -> float:
    return 0.9


def reacts(running: float) -> float:
    """The mean goes where it contradicts what was seen so far."""
    return 0.2 if running > 0.5 else 0.8


@pytest.mark.parametrize("runs", [25, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mean_after", quick([constant, reacts], reacts))
@pytest.mark.parametrize("binary", [True, False])
def test_on_fresh_items_the_band_covers_the_running_mean(mean_after, binary, runs):
    """30 looks of 20 items; the mean may depend on all that was seen."""
    draw = torch.Generator().manual_seed(1)
    missed = 0
    for _ in range(runs):
        band, seen, truth = RunningBand(ALPHA), 0.0, 0.0
        miss = False
        for t in range(LOOKS):
            mean = mean_after(seen / (20 * t) if t else 0.5)
            scores = torch.rand(20, generator=draw)
            # Uniform on [0, 1] raised to (1 - mean) / mean has that mean.
            scores = (scores < mean).double() if binary else scores.double() ** ((1 - mean) / mean)
            low, high = band.update(scores)
            seen += float(scores.sum())
            truth += mean / LOOKS
            miss |= not low <= truth * LOOKS / (t + 1) <= high
        missed += miss
    assert limits(missed, runs)[0] <= ALPHA


def test_the_band_narrows_with_the_items():
    """Within a factor of 2 of the limits that hold at one look only, from 100 to 100,000 items."""
    draw = torch.Generator().manual_seed(2)
    band = RunningBand(0.05)
    counts = torch.zeros(2, dtype=torch.float64)
    for n in (100, 900, 9_000, 90_000):
        scores = (torch.rand(n, generator=draw) < 0.7).double()
        low, high = band.update(scores)
        counts += tally(scores, binary=True)
        below, above = Mean(tuple(counts.tolist())).limits(0.95)
        assert 1 < (high - low) / (above - below) < 2


def test_its_equation():
    """The limit is where the average wealth is 2 / alpha: written out for three scores."""
    band = RunningBand(0.9)
    low, _ = band.update(torch.tensor([1.0, 1.0, 0.5]))
    gammas = torch.logspace(math.log10(0.02), math.log10(20), 16, dtype=torch.float64)
    wealth = (1 + gammas) ** 2 * (1 + gammas / 2) / (1 + gammas * low) ** 3
    assert float(wealth.mean()) == pytest.approx(2 / 0.9)


def test_state_is_plain_and_goes_on_where_it_was():
    first, second = RunningBand(), RunningBand()
    first.update(torch.rand(30, generator=torch.Generator().manual_seed(3)))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.update(torch.ones(5)) == first.update(torch.ones(5))


def test_wrong_use_is_refused():
    with pytest.raises(ConfigurationError, match="alpha"):
        RunningBand(0.0)
    with pytest.raises(ValueError, match="rescale them"):
        RunningBand().update(torch.tensor([2.0]))
