"""Ridge from sums is the ridge from items, however the items are cut up."""

import numpy as np
import pytest
import torch
from sklearn import linear_model

from lightning_mesa.stats.ridge import FoldSums, HeldOut, OnlineCode, Ridge, Unseen, doubling, ridge

N, D, T, F = 300, 12, 3, 5


def data(seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(N, D, generator=draw) + 7
    y = x @ torch.randn(D, T, generator=draw) + torch.randn(N, T, generator=draw)
    return x, y, torch.arange(N) % F


def known(x, y, penalty):
    """Weights and intercepts of scikit-learn, of the features as they are."""
    x, y = x.double().numpy(), y.double().numpy()
    mean, sd = x.mean(0), x.std(0)
    fit = linear_model.Ridge(alpha=penalty * len(x)).fit((x - mean) / sd, y)
    weights = fit.coef_.T / sd[:, None]
    return weights, fit.intercept_ - mean @ weights


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("n", [N, D - 4])
def test_weights_are_those_of_scikit_learn_from_sums_and_from_items_also_if_these_are_fewer_than_features(penalty, n):
    x, y, _ = data()
    x, y = x[:n], y[:n]
    of_known = known(x, y, penalty)
    (weights,), (intercepts,) = Ridge(FoldSums.of(x, y, torch.zeros(n).long(), 1)).fit(penalty)
    for given in ((weights, intercepts), ridge(x, y, penalty)):
        assert np.abs(given[0].numpy() - of_known[0]).max() < 1e-6
        assert np.abs(given[1].numpy() - of_known[1]).max() < 1e-6


def test_constant_features_get_no_weight():
    x, y, _ = data()
    weights, intercepts = ridge(torch.cat([x, torch.full((N, 1), 7.1)], 1), y, 0.1)
    assert torch.equal(weights[-1], torch.zeros(T).double())
    of_rest = ridge(x, y, 0.1)
    assert torch.allclose(weights[:-1], of_rest[0])
    assert torch.allclose(intercepts, of_rest[1])


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
    first, second = (FoldSums.of(x[i::2], y[i::2], folds[i::2], F) for i in range(2))
    parts = first + second
    assert torch.allclose(whole.products, parts.products, rtol=1e-12)
    assert torch.allclose(whole.yy, parts.yy, rtol=1e-12)


def test_memory_does_not_grow_with_the_number_of_items():
    x, y, folds = data()
    few, many = FoldSums.of(x[:50], y[:50], folds[:50], F), FoldSums.of(x, y, folds, F)
    assert few.products.shape == many.products.shape
    assert few.yy.shape == many.yy.shape


def test_sums_are_what_they_are_called():
    x, y, folds = (of.double() if of.is_floating_point() else of for of in data())
    sums, here = FoldSums.of(x, y, folds, F), folds == 2
    for found, known in (
        (sums.n, here.sum().double()),
        (sums.x, x[here].sum(0)),
        (sums.y, y[here].sum(0)),
        (sums.xx, x[here].T @ x[here]),
        (sums.xy, x[here].T @ y[here]),
        (sums.yy, (y[here] ** 2).sum(0)),
    ):
        assert torch.allclose(found[2], known, rtol=1e-12)


def test_sums_without_some_are_those_of_the_others():
    x, y, folds = data()
    sums = FoldSums.of(x, y, folds, F)
    known = FoldSums.of(x[folds != 2], y[folds != 2], folds[folds != 2], F).joined([(0, F)])
    assert torch.allclose(sums.others().products[2], known.products[0], rtol=1e-9)


def test_constant_and_duplicated_features_change_nothing():
    x, y, folds = data()
    padded = torch.cat([x, torch.full((N, 1), 3.0), x[:, :1]], 1)
    plain, more = (HeldOut(FoldSums.of(f, y, folds, F)).errors(1e-6) for f in (x, padded))
    assert torch.allclose(plain, more, rtol=1e-3)
    assert more.isfinite().all()


def test_errors_on_unseen_items_are_those_of_the_predictions():
    x, y, folds = data()
    sums = FoldSums.of(x, y, folds, F)
    ridge, here = Ridge(sums.joined([(1, F)])), folds == 0
    (weights,), (intercepts,) = ridge.fit(0.1)
    missed = x[here].double() @ weights + intercepts - y[here]
    (errors,) = Unseen(ridge, sums.joined([(0, 1)])).errors(0.1)
    assert torch.allclose(errors, (missed**2).sum(0), rtol=1e-8)


def test_portions_double():
    assert doubling(10) == [(1, 2), (2, 4), (4, 8), (8, 10)]


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
