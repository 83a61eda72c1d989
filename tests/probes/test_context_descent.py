"""Iterates that go down what their context states are told from those that go anywhere else."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import inner_optimizers
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import ContextDescent, Contexts
from lightning_mesa.probes.descent import contrasts, cosines, mean_contrast

SIZE = 4


def above(target):
    return lambda y, contexts: (y - contexts[target]).square().sum(1)


def contexts(n: int = 200, seed: int = 0) -> Contexts:
    """A context is two points; base's and the proxy's objective are the distances from them."""
    base, proxy = torch.randn(2, n, SIZE, generator=torch.Generator().manual_seed(seed))
    objectives = {name: above(name) for name in ("base", "proxy")}
    return Contexts(torch.cat([base, proxy], 1), {"base": base, "proxy": proxy}, objectives)


class Walk(nn.Module):
    """Five steps towards a point: base's, the proxy's, one that is always the same, or none.

    Drawn anew it goes where it always goes, unless its way is innate.
    """

    def __init__(self, to: str, start: float = 0.0, *, innate: bool = False) -> None:
        super().__init__()
        self.innate = innate
        self.to = to
        self.start = start
        self.iterate = nn.Identity()
        self.head = nn.Linear(SIZE, SIZE)
        self.weight = nn.Parameter(torch.ones(()))

    def reset_parameters(self):
        self.to = self.to if self.innate else "same"

    def target(self, x):
        same = torch.ones(len(x), SIZE)
        return {"base": x[:, :SIZE], "proxy": x[:, SIZE:], "same": same, "none": same * self.start}[self.to]

    def forward(self, x):
        y = self.iterate(torch.full((len(x), SIZE), self.start))
        for _ in range(5):
            y = self.iterate(y + 0.3 * self.weight * (self.target(x) - y))
        return y


def _probe(model, data=None, layers="iterate", **options):
    data = contexts() if data is None else data
    probe = ContextDescent(data, layers, **options)
    subject = Subject(model)
    probe.check(subject)
    with torch.no_grad():
        found = probe.run(subject)
    return {(result.quantity, result.objective): result for result in found}, subject


@pytest.mark.parametrize("to", ["base", "proxy"])
def test_the_objective_that_is_descended_is_found_at_the_cost_of_one_forward_pass(to):
    other = {"base": "proxy", "proxy": "base"}[to]
    found, subject = _probe(Walk(to))
    assert found["probe", to].detail["own"] == pytest.approx(1.0)
    assert found["probe", to].value > 1.0  # others' ways down lead back
    assert found["probe", to].positive
    assert found["probe", to].p == 0.05
    assert not found["probe", other].positive
    assert subject.passes == 1
    assert (found["margin", "proxy"].value > 0) == (to == "base")
    assert found["margin", "proxy"].low > 0 or found["margin", "proxy"].high < 0
    assert found["margin", "proxy"].bar is None


def test_the_bar_is_passed_by_the_lower_limit():
    result = _probe(Walk("base"))[0]["probe", "base"]
    assert result.low < result.value < result.high
    assert _probe(Walk("base"), bar=result.low - 0.01)[0]["probe", "base"].positive
    assert not _probe(Walk("base"), bar=result.value)[0]["probe", "base"].positive


def test_cosines_are_those_of_the_definition():
    draw = torch.Generator().manual_seed(1)
    iterates = [torch.randn(3, SIZE, generator=draw) for _ in range(3)]
    data = contexts(3)
    found, lowered = cosines(iterates, data.objectives["base"], data.contexts, [torch.tensor([1, 2, 0])])
    assert found.shape == (2, 2, 3)
    for step in range(2):
        for item in range(3):
            before, after = (iterates[step + k][item] for k in (0, 1))
            for row, of in enumerate((item, (item + 1) % 3)):
                target = data.contexts["base"][of]
                down = 2 * (target - before)
                cosine = (after - before) @ down / (after - before).norm() / down.norm()
                assert found[row, step, item] == pytest.approx(float(cosine), abs=1e-6)
            target = data.contexts["base"][item]
            assert lowered[step, item] == ((after - target).norm() < (before - target).norm())


def test_contrasts_leave_out_what_is_not_there():
    nan = torch.nan
    found = torch.tensor([[[0.9, nan], [0.7, nan]], [[0.1, 0.2], [nan, 0.0]], [[0.3, 0.2], [0.2, 0.0]]])
    contrast = contrasts(found)
    assert contrast[0, 0] == pytest.approx(((0.9 - 0.2) + (0.7 - 0.2)) / 2)
    assert contrast[1, 0] == pytest.approx(0.1 - 0.3)  # where there is no other draw there is no contrast
    assert contrast[0, 1].isnan()


def test_steps_that_are_the_same_in_all_contexts_descend_none():
    found, _ = _probe(Walk("same"))
    assert abs(found["probe", "base"].value) < 0.2
    assert found["probe", "base"].null_mean == pytest.approx(0.0, abs=0.05)
    assert not found["probe", "base"].positive


def test_a_way_down_that_all_contexts_share_has_the_cosine_and_not_the_contrast():
    data = contexts()
    far = {"base": data.contexts["base"] + 4}
    common = Contexts(data.batch, far, {"base": above("base")})
    result = _probe(Walk("same"), common)[0]["probe", "base"]
    assert result.detail["own"] > 0.9
    assert abs(result.value) < 0.05
    assert not result.positive


@pytest.mark.slow
def test_contexts_that_have_changed_places_exceed_the_null_no_more_often_than_by_chance():
    below = 0
    for seed in range(30):
        data = contexts(60, seed)
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        swapped = {name: part[order] for name, part in data.contexts.items()}
        result = _probe(Walk("base"), replace(data, contexts=swapped, objectives={"base": above("base")}))[0]
        below += result["probe", "base"].p <= 0.05
    assert below <= 5  # of 30 at a chance of .05: more in 1 % of cases


def test_limits_hold_the_mean():
    draw = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(100):
        of_groups = 4 * torch.rand(50, generator=draw, dtype=torch.float64) ** 3 - 2  # its mean is -1
        effect = mean_contrast(of_groups)
        assert effect.value == pytest.approx(float(of_groups.mean()), abs=1e-6)
        held += effect.lower(0.025) <= -1 <= effect.upper(0.025)
    assert held >= 93


def test_one_iterate_is_not_applicable():
    found, _ = _probe(Walk("base"), layers="head")
    result = found["probe", "base"]
    assert (result.status, result.value) == ("not_applicable", None)
    assert "give 0 iterate" in result.reason


class Layers(nn.Module):
    """Three layers that each go half of what is left to base's point, the last of them twice, doubled inside."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Identity()
        self.halve = nn.Linear(SIZE, SIZE, bias=False)
        self.halve.weight.data = 0.5 * torch.eye(SIZE)
        self.in_place = in_place

    def forward(self, x):
        target, y = 2 * x[:, :SIZE], torch.zeros(len(x), SIZE)
        for layer in (self.second, self.first, self.second):
            y = layer(y)
            y = y.add_(0.5 * (target - y)) if self.in_place else y + 0.5 * (target - y)
        return y


@pytest.mark.parametrize("in_place", [False, True])
def test_iterates_come_in_the_order_in_which_layers_are_called_and_are_decoded(in_place):
    by_name, _ = _probe(Layers(in_place), layers=["first", "second"], decode="halve")
    by_function, _ = _probe(Layers(in_place), layers=["first", "second"], decode=lambda model, y: model.halve(y))
    result = by_name["probe", "base"]
    assert (result.detail["steps"], result.detail["lowered"]) == (2, 1.0)
    assert result.detail["own"] == pytest.approx(1.0)
    assert result.value == by_function["probe", "base"].value


def test_steps_of_no_length_are_left_out_and_nothing_else_is_underpowered():
    data = contexts()
    still = data.contexts["base"].clone()
    still[:50] = 0.0  # these are where they want to be
    some = Contexts(torch.cat([still, still], 1), {"base": still}, {"base": above("base")})
    result = _probe(Walk("base"), some)[0]["probe", "base"]
    assert result.n == 150
    assert result.detail["own"] == pytest.approx(1.0)
    assert result.detail["left_out"] == pytest.approx(0.25)
    found, _ = _probe(Walk("none"))
    assert (found["probe", "base"].status, found["probe", "base"].value) == ("underpowered", None)
    assert ("margin", "proxy") not in found


def test_iterates_that_are_not_finite_are_left_out_and_counted():
    data = contexts()
    data.batch[:3] = torch.nan
    result = _probe(Walk("base"), data)[0]["probe", "base"]
    assert result.n == 197
    assert result.detail["not_finite"] == 3 * 5
    assert result.detail["own"] == pytest.approx(1.0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_no_gradient_reaches_the_model_in_any_mode(mode):
    model = Walk("base")
    model.head.weight.grad = torch.ones(SIZE, SIZE)
    with mode():
        probe = ContextDescent(lambda: contexts(), "iterate", decode="head")
        subject = Subject(model)
        probe.check(subject)
        results = probe.run(subject)
    assert model.weight.grad is None
    assert model.head.weight.grad.equal(torch.ones(SIZE, SIZE))
    with torch.no_grad():
        assert [result.value for result in probe.run(subject)] == [result.value for result in results]


def test_groups_take_the_contexts_of_other_groups():
    """Contexts of one group are the same: if they were exchanged among each other, no contrast would be left."""
    data = contexts(100)
    base = data.contexts["base"][:40].repeat_interleave(5, 0)
    same = Contexts(torch.cat([base, base], 1), (base,), {"base": lambda y, c: (y - c[0]).square().sum(1)})
    grouped = replace(same, groups=torch.arange(40).repeat_interleave(5))
    result = _probe(Walk("base"), grouped)[0]["probe", "base"]
    assert result.n == 40
    assert result.value > 0.7


@pytest.mark.parametrize(("groups", "reason"), [(1, "1 group: there is no other"), (20, "20 groups tell anything")])
def test_few_groups_are_underpowered(groups, reason):
    data = replace(contexts(), groups=torch.arange(200) % groups)
    result = _probe(Walk("base"), data)[0]["probe", "base"]
    assert result.status == "underpowered"
    assert reason in result.reason


def test_what_descends_untrained_is_an_invalid_control_and_is_forgotten_with_another_model():
    probe = ContextDescent(contexts(), "iterate", bar=0.5)
    with torch.no_grad():
        for model, status in ((Walk("base", innate=True), "invalid_control"), (Walk("same"), "ok")):
            subject = Subject(model)
            probe.check(subject)
            assert probe.run(subject)[0].status == status


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": {}}, "objectives is empty"),
        ({"contexts": {}}, "contexts is empty"),
        ({"contexts": {"base": 3}}, r"contexts\['base'\] is int"),
        ({"contexts": (torch.zeros(5, 4), torch.zeros(6, 4))}, r"have \{'contexts\[0\]': 5, 'contexts\[1\]': 6"),
        ({"batch": torch.zeros(7, 8)}, "'batch': 7"),
        ({"groups": torch.zeros(7)}, r"groups is \[7\] where it must be \[200\]"),
    ],
)
def test_contexts_that_do_not_fit_are_refused_before_training(change, message):
    with pytest.raises(ConfigurationError, match=message):
        ContextDescent(replace(contexts(), **change), "iterate").check(Subject(Walk("base")))


def test_layers_and_heads_that_are_not_there_are_refused_before_training():
    with pytest.raises(ConfigurationError, match="no layer 'iterates'"):
        ContextDescent(contexts(), "iterates").check(Subject(Walk("base")))
    with pytest.raises(ConfigurationError, match="decode='decide' is no module of Walk"):
        ContextDescent(contexts(), "iterate", decode="decide").check(Subject(Walk("base")))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda y, contexts: y.sum(), r"'base': the objective failed .* it gives \[\] where it must be \[200\]"),
        (lambda y, contexts: contexts["base"].sum(1), "it cannot be differentiated by y"),
        (lambda y, contexts: (y - contexts["best"]).sum(1), "KeyError: 'best'"),
    ],
)
def test_objectives_that_cannot_be_descended_are_refused(objective, message):
    with pytest.raises(ConfigurationError, match=message):
        _probe(Walk("base"), replace(contexts(), objectives={"base": objective}))


def test_iterates_of_another_shape_are_refused():
    with pytest.raises(ConfigurationError, match=r"iterates \[200, 4\] and \[200, 2\] where all must be of one shape"):
        _probe(Walk("base"), decode=lambda model, y: y if (y == 0).all() else y[:, :2])


def test_a_tied_network_that_has_learned_to_minimise_descends_and_a_plain_one_does_not():
    data, unseen = inner_optimizers.draw(5_000, 0), inner_optimizers.draw(300, 1)
    objectives = {goal: inner_optimizers.objective(goal) for goal in inner_optimizers.GOALS}
    given = Contexts(unseen.seen, unseen.contexts, objectives)
    value = {}
    for build in (inner_optimizers.Tied, inner_optimizers.Plain):
        torch.manual_seed(0)
        network = inner_optimizers.train(build(32), data.seen, data.base, 100, seed=0)
        layers, decode = inner_optimizers.ITERATES[build]
        found, _ = _probe(network, given, layers, decode=decode)
        value[build] = found["probe", "base"].value
        assert abs(found["probe", "base"].detail["untrained"]) < 0.4
    assert value[inner_optimizers.Tied] > 0.8 > 0.6 > value[inner_optimizers.Plain]
