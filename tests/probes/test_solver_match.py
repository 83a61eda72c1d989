"""Which solver a model answers like is found on models that are solvers, and on a network that was trained."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from in_context import LinearAttention, draw
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import Problems, SolverMatch
from lightning_mesa.probes.solvers import (
    Regressions,
    descent,
    explained,
    explained_with_limits,
    kernel_average,
    nearest,
    preconditioner,
    ridge,
    unit_scale,
)


def problems(n=300, seed=1, **options):
    return draw(n, torch.Generator().manual_seed(seed), **options).problems


def seen(tokens):
    tokens = tokens.double()
    return Regressions(tokens[:, :-1, :-1], tokens[:, :-1, -1], tokens[:, -1, :-1])


class Known(nn.Module):
    """Answers as a function does; drawn anew with zero, unless the function is innate."""

    def __init__(self, function, *, innate=False):
        super().__init__()
        self.innate = innate
        self.function = function
        self.weight = nn.Parameter(torch.ones(()))

    def reset_parameters(self):
        self.weight.data.mul_(float(self.innate))

    def forward(self, tokens):
        return self.weight * self.function(seen(tokens))


def run(model, near=None, far=None, **options):
    near, far = near or problems(), far or problems(seed=2, far=True)
    probe, subject = SolverMatch(near, far, **options), Subject(model)
    probe.check(subject)
    with torch.no_grad():
        (result,) = probe.run(subject)
    json.dumps(dict(result.detail), allow_nan=False)
    return result


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gradient descent, 1 step", lambda p: descent(p, 1, 2.0)),
        ("gradient descent, 3 steps", lambda p: descent(p, 3, 1.0)),
        ("GD++, 2 steps", lambda p: descent(p, 2, 4.0, 0.6)),
        ("ridge", lambda p: ridge(p, 0.1)),
        ("least squares", lambda p: ridge(p, 0.0)),
    ],
)
def test_a_model_that_is_a_solver_is_found_to_be_that_solver(name, function):
    result = run(Known(function))
    assert result.positive
    assert result.detail["solver"] == name
    assert result.value > 0.9999
    assert result.detail["r2_far"] > 0.999


def test_a_step_that_is_preconditioned_is_found_where_inputs_are_not_alike_in_all_directions():
    scale = torch.tensor([1.0, 0.4, 0.2])
    near, far = (stretched(problems(seed=seed), scale) for seed in (1, 2))
    root = preconditioner(seen(near.batch))
    result = run(Known(lambda p: descent(p.through(root), 1, 0.8)), near=near, far=far)
    assert result.positive
    assert result.detail["solver"] == "preconditioned gradient descent, 1 step"
    assert result.detail["r2"]["gradient descent, 1 step"] < 0.98


def stretched(of, scale):
    wide = torch.cat([scale, torch.ones(1)])
    return replace(of, batch=of.batch * wide, inputs=of.inputs * scale, queries=of.queries * scale)


@pytest.mark.parametrize(
    "function",
    [
        lambda p: nearest(p, 1),
        lambda p: nearest(p, 3),
        lambda p: kernel_average(p, 0.3),
        lambda p: p.targets.mean(1) + 0.01 * p.queries[:, 0],
    ],
)
def test_what_solves_nothing_is_not_taken_for_a_solver(function):
    result = run(Known(function))
    assert not result.positive
    assert "margin over what solves nothing" in result.reason


@pytest.mark.slow
def test_a_network_that_was_trained_is_found_to_take_one_step_and_its_untrained_copy_is_not():
    torch.manual_seed(0)
    random, network = torch.Generator().manual_seed(0), LinearAttention()
    optimizer = torch.optim.Adam(network.parameters(), 2e-2)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / 600)
        some = draw(128, random)
        optimizer.zero_grad()
        (network(some.tokens) - some.answers).square().mean().backward()
        optimizer.step()
    result = run(network)
    assert result.positive
    assert result.detail["solver"].endswith("gradient descent, 1 step")
    assert result.detail["untrained"] < 0.5
    assert result.p == 1 / 101


def test_a_solver_that_holds_in_distribution_only_does_not_qualify():
    def within(p):
        return torch.where(p.inputs.abs().amax((1, 2)) <= 1, descent(p, 1, 2.0), p.targets.mean(1))

    result = run(Known(within))
    assert result.value > 0.999
    assert (result.status, result.qualified, result.positive) == ("ok", False, False)
    assert "out of distribution" in result.reason


def test_answers_that_break_down_out_of_distribution_do_not_qualify():
    def within(p):
        return torch.where(p.inputs.abs().amax((1, 2)) <= 1, descent(p, 1, 2.0), torch.nan)

    result = run(Known(within))
    assert (result.qualified, result.detail["r2_far"]) == (False, None)
    assert "out of distribution R2 is not defined" in result.reason


def test_a_step_too_short_to_answer_anything_does_not_qualify():
    result = run(Known(lambda p: descent(p, 1, 0.2)))
    assert result.value > 0.999
    assert not result.positive
    assert "does not do its task" in result.reason


def test_a_model_that_was_a_solver_before_it_learned_anything_is_an_invalid_control():
    result = run(Known(lambda p: descent(p, 1, 2.0), innate=True))
    assert (result.status, result.positive) == ("invalid_control", False)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda p: p.targets[:, 0] * torch.nan, "300 of 300 answers are not finite"),
        (lambda p: torch.ones(len(p.targets)), "all alike"),
        (lambda p: torch.zeros(len(p.targets)), "all alike"),
    ],
)
def test_answers_without_a_defined_r2_are_not_applicable(function, reason):
    result = run(Known(function))
    assert (result.status, result.value) == ("not_applicable", None)
    assert reason in result.reason


@pytest.mark.parametrize("n", [2, 20])
def test_few_problems_are_underpowered(n):
    assert run(Known(lambda p: descent(p, 1, 2.0)), near=problems(n)).status == "underpowered"


def test_problems_of_one_origin_are_one_group():
    result = run(Known(lambda p: descent(p, 1, 2.0)), near=replace(problems(), groups=torch.arange(300) // 10))
    assert result.status == "underpowered"
    assert result.n < 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(300, 10)}, r"problems: inputs is \[300, 10\]; it must be \[n, k, d\]"),
        ({"inputs": torch.zeros(300, 10, 3)}, "inputs has numbers that are not finite, or is all zero"),
        (
            {"targets": torch.zeros(300, 9)},
            r"with inputs \[300, 10, 3\]: targets is \[300, 9\] where it must be \[300, 10\]",
        ),
        ({"queries": torch.full((300, 3), torch.nan)}, "queries has numbers that are not finite"),
        ({"answers": torch.zeros(300)}, "answers are all alike"),
        ({"groups": torch.zeros(4)}, r"groups is \[4\]"),
    ],
)
def test_problems_that_do_not_fit_are_refused_before_training(change, message):
    with pytest.raises(ConfigurationError, match=message):
        SolverMatch(replace(problems(), **change), problems()).check(Subject(LinearAttention()))


def test_far_problems_of_another_size_and_no_steps_are_refused():
    flat = Problems(torch.ones(2, 1), torch.ones(2, 4, 1), torch.ones(2, 4), torch.ones(2, 1), torch.arange(2.0))
    with pytest.raises(ConfigurationError, match="have 3 components, those of far 1"):
        SolverMatch(problems(), flat).check(Subject(LinearAttention()))
    with pytest.raises(ConfigurationError, match="steps is"):
        SolverMatch(problems(), problems(), steps=()).check(Subject(LinearAttention()))


def test_more_than_one_answer_to_a_problem_is_refused():
    with pytest.raises(ConfigurationError, match=r"gives \[300, 3\] for 300 problems"):
        run(Known(lambda p: p.queries))


def test_a_column_of_answers_is_taken_as_well():
    assert run(Known(lambda p: descent(p, 1, 2.0)[:, None])).positive


def test_a_look_costs_two_passes_and_problems_are_made_once():
    made = []
    probe = SolverMatch(lambda: made.append(1) or problems(), lambda: made.append(2) or problems(far=True))
    subject = Subject(LinearAttention())
    assert probe.check(subject) == "2 forward passes, over 300 problems and 300 far ones"
    with torch.no_grad():
        first, second = probe.run(subject)[0], probe.run(subject)[0]
    assert (subject.passes, made) == (4, [1, 2])
    assert first == second


def test_gradient_descent_goes_down_the_gradient_of_the_squared_error():
    of = seen(problems(20).batch)
    weights = torch.zeros(20, 3, dtype=torch.float64)
    for _ in range(3):
        residuals = (of.inputs * weights[:, None]).sum(2) - of.targets
        weights = weights - 0.7 / 10 * (residuals[..., None] * of.inputs).sum(1)
    torch.testing.assert_close(descent(of, 3, 0.7), (weights * of.queries).sum(1))


def test_a_step_of_gd_plus_plus_is_a_layer_of_linear_attention():
    network = LinearAttention(2).double()
    with torch.no_grad():
        network.keys.copy_(torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])))
        network.values.copy_(-torch.diag(torch.tensor([0.3, 0.3, 0.3, 2.0])))
        tokens = problems(20).batch.double()
        torch.testing.assert_close(network(tokens), descent(seen(tokens), 2, 2.0, 0.3))


def test_many_steps_and_a_small_penalty_lead_to_least_squares():
    of = seen(problems(20).batch)
    exact = torch.linalg.lstsq(of.inputs, of.targets[..., None]).solution[..., 0]
    for answers in (descent(of, 3000, 1.5), ridge(of, 1e-9), ridge(of, 0.0)):
        torch.testing.assert_close(answers, (exact * of.queries).sum(1), atol=1e-5, rtol=1e-5)


def test_with_fewer_inputs_than_components_least_squares_is_the_shortest():
    of = seen(problems(20).batch)
    few = Regressions(of.inputs[:, :2], of.targets[:, :2], of.queries)
    weights = few.inputs.mT @ torch.linalg.solve(few.inputs @ few.inputs.mT, few.targets[..., None])
    torch.testing.assert_close(ridge(few, 0.0), (weights[..., 0] * few.queries).sum(1))


def test_a_wide_kernel_is_the_mean_and_a_narrow_one_the_nearest():
    of = seen(problems(20).batch)
    torch.testing.assert_close(kernel_average(of, 1e4), of.targets.mean(1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(kernel_average(of, 1e-4), nearest(of, 1))
    torch.testing.assert_close(nearest(of, 10), of.targets.mean(1))


def test_preconditioning_changes_nothing_but_the_scale_where_all_directions_are_alike():
    inputs = torch.eye(3, dtype=torch.float64).repeat(5, 1, 1)
    of = Regressions(inputs, torch.ones(5, 3), torch.ones(5, 3))
    torch.testing.assert_close(preconditioner(of), unit_scale(of))


def test_limits_hold_the_true_r2_about_as_often_as_they_say():
    random = torch.Generator().manual_seed(0)
    held, truth, draws = 0, 1 - 0.1**2 / 1.0, 400
    for _ in range(draws):
        answers = torch.randn(120, generator=random, dtype=torch.float64)
        by = answers + 0.1 * torch.randn(120, generator=random, dtype=torch.float64)
        _, low, high = explained_with_limits(answers, by, torch.arange(120), 0.95)
        held += low <= truth <= high
    assert 0.92 <= held / draws <= 0.98


def test_one_problem_that_is_badly_missed_widens_limits_and_does_not_blow_them_up():
    answers = torch.randn(180, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by = answers + 1e-4
    by[0] += 0.4
    value, low, _ = explained_with_limits(answers, by, torch.arange(180), 0.95)
    assert 0.98 < low < value < 1


def test_items_that_are_told_twice_are_not_more_evidence():
    answers, by = torch.randn(2, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once = explained_with_limits(answers, by, torch.arange(60), 0.95)
    twice = explained_with_limits(answers.repeat(2), by.repeat(2), torch.arange(60).repeat(2), 0.95)
    assert once == pytest.approx(twice)
    assert once[0] == pytest.approx(explained(answers, by))


def test_an_exact_match_has_limits_at_one():
    answers = torch.arange(40, dtype=torch.float64)
    assert explained_with_limits(answers, answers, torch.arange(40), 0.95) == pytest.approx((1, 1, 1), abs=1e-9)
