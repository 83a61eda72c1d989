"""Ridge from sums is the ridge from items, however the items are cut up."""

import numpy as np
import pytest
import torch
from sklearn import linear_model

from lightning_mesa.probes.ridge import FoldSums, HeldOut, OnlineCode, Ridge, squared_errors

N, D, T, F = 300, 12, 3, 5


def data(seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(N, D, generator=draw) + 7
    y = x @ torch.randn(D, T, generator=draw) + torch.randn(N, T, generator=draw)
    return x, y, torch.arange(N) % F


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3])
def test_weights_are_those_of_scikit_learn(alpha):
    x, y, _ = data()
    weights, intercepts = Ridge(FoldSums.of(x, y, torch.zeros(N).long(), 1), standardized=False).fit(alpha)
    known = linear_model.Ridge(alpha=alpha).fit(x.double().numpy(), y.double().numpy())
    assert np.abs(weights.numpy() - known.coef_.T).max() < 1e-6
    assert np.abs(intercepts.numpy() - known.intercept_).max() < 1e-6


def test_held_out_errors_are_those_of_fits_to_the_other_folds():
    x, y, folds = data()
    held = HeldOut(FoldSums.of(x, y, folds, F))
    errors, spread = held.errors(0.1), held.spread()
    for fold in range(F):
        here = folds == fold
        of, others = x[here].double().numpy(), x[~here].double().numpy()
        mean, sd = others.mean(0), others.std(0)
        known = linear_model.Ridge(alpha=0.1 * len(others)).fit((others - mean) / sd, y[~here].double().numpy())
        missed = ((known.predict((of - mean) / sd) - y[here].double().numpy()) ** 2).sum(0)
        assert np.allclose(errors[fold].numpy(), missed, rtol=1e-6)
        of_mean = ((y[here] - y[~here].mean(0)) ** 2).sum(0)
        assert torch.allclose(spread[fold].float(), of_mean, rtol=1e-4)


def test_sums_of_two_processes_are_those_of_one():
    x, y, folds = data()
    whole = FoldSums.of(x, y, folds, F)
    parts = FoldSums.of(x[::2], y[::2], folds[::2], F) + FoldSums.of(x[1::2], y[1::2], folds[1::2], F)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(whole.tensors, parts.tensors, strict=True))


def test_memory_does_not_grow_with_the_number_of_items():
    x, y, folds = data()
    few, many = FoldSums.of(x[:50], y[:50], folds[:50], F), FoldSums.of(x, y, folds, F)
    assert [a.shape for a in few.tensors] == [b.shape for b in many.tensors]


def test_constant_and_duplicated_features_change_nothing():
    x, y, folds = data()
    padded = torch.cat([x, torch.full((N, 1), 3.0), x[:, :1]], 1)
    plain, more = (HeldOut(FoldSums.of(f, y, folds, F)).errors(1e-6) for f in (x, padded))
    assert torch.allclose(plain, more, rtol=1e-3)
    assert more.isfinite().all()


def test_squared_errors_are_those_of_the_predictions():
    x, y, _ = data()
    sums = FoldSums.of(x, y, torch.zeros(N).long(), 1)
    weights, intercepts = Ridge(sums).fit(1.0)
    predicted = x.double() @ weights + intercepts
    assert torch.allclose(squared_errors(sums, weights, intercepts), ((predicted - y) ** 2).sum(0), rtol=1e-8)


def test_some_targets_give_what_all_give():
    x, y, folds = data()
    held = HeldOut(FoldSums.of(x, y, folds, F))
    assert torch.allclose(held.errors(0.1, slice(1, 3)), held.errors(0.1)[:, 1:3], rtol=1e-12)
    assert torch.allclose(held.spread(slice(1, 3)), held.spread()[:, 1:3], rtol=1e-12)


def test_features_that_tell_nothing_save_nothing():
    x, y, folds = data()
    noise = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    informative, empty = (OnlineCode(FoldSums.of(f, y, folds, F)).saved(0.1, slice(0, T)) for f in (x, noise))
    assert informative > 0.5 > 0.02 > empty
