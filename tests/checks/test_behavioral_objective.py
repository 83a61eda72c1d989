"""The behavioral objective of items and of decisions in environments: numbers where there are some, else reasons."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_mesa.checks import BehavioralObjective, Look, ObjectiveGap
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.matches import Matches
from lightning_mesa.observe.forward import Reading, behave
from lightning_mesa.records import Decisions, Finding
from lightning_mesa.testing import look_at

LOOK = Look(4, 2, "y", {"val": "reference", "apart": "shifted"})
WEIGHTS = {"y": 1.0, "z": 2.5}
CHOICES = 5


def batch(n: int = 600, agree: float = 0.3, seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    y, other = (torch.randint(CHOICES, (n,), generator=draw) for _ in range(2))
    return {"y": y, "z": torch.where(torch.rand(n, generator=draw) < agree, y, other)}


def logits(items: dict[str, Tensor], **weights: float) -> Tensor:
    """Those of a soft-optimal chooser for these weights."""
    onehot = torch.nn.functional.one_hot
    return sum(w * onehot(items[key], CHOICES).double() for key, w in (weights or WEIGHTS).items())  # type: ignore[return-value]


def measured(items: dict[str, Tensor], outputs: Tensor, hypotheses: Hypotheses | None = None) -> dict[tuple, Finding]:
    hypotheses = hypotheses or Hypotheses(Matches("y"), [Matches("z")])
    seen = [behave(where, items, outputs, hypotheses, Reading()) for where in LOOK.roles]
    look = look_at(seen, hypotheses, checks=[ObjectiveGap(), BehavioralObjective()])
    return {(f.quantity, f.objective): f for f in look.findings if f.distribution == "apart"}


def numbers(found: dict[tuple, Finding], *, but: str = "regret") -> list[Finding]:
    """Findings of the behavioral objective that have a number."""
    ours = [f for f in found.values() if f.measure == BehavioralObjective.name and f.quantity != but]
    return [f for f in ours if f.value is not None]


def test_the_weights_of_a_soft_optimal_chooser_are_recovered():
    found = measured(items := batch(), logits(items))
    for name, weight in WEIGHTS.items():
        assert found["behavioral", name].value == pytest.approx(weight, abs=1e-6)
    assert found["weight_gap", "z"].value > 0
    assert found["explained", None].value == pytest.approx(1)
    assert found["goal_directedness", None].value == pytest.approx(found["negentropy", None].value)


def test_each_way_to_be_has_its_distance_to_base():
    """0 for base itself, 1 for its opposite, and in between for the proxy."""
    items = batch()
    distances = [
        measured(items, logits(items, **w))["reward_distance", "y"].value
        for w in ({"y": 2.0, "z": 0.0}, {"y": 0.2, "z": 2.0}, {"y": -2.0, "z": 0.0})
    ]
    assert distances[0] == pytest.approx(0, abs=1e-4)
    assert 0.3 < distances[1] < 0.7
    assert distances[2] == pytest.approx(1, abs=1e-4)


def test_one_that_pursues_nothing_has_no_objective_and_no_distance():
    found = measured(items := batch(), torch.zeros(len(items["y"]), CHOICES))
    assert found["reward_distance", "y"].value is None
    assert "no objective" in found["reward_distance", "y"].detail["unknown"]
    assert found["goal_directedness", None].value == pytest.approx(0, abs=1e-9)
    assert found["explained", None].value is None


def test_where_base_and_proxy_always_agree_no_weight_has_a_number():
    items = batch(agree=1.0)
    found = measured(items, logits(items) + torch.randn(600, CHOICES, generator=torch.Generator().manual_seed(1)))
    unknown = [f for f in found.values() if f.quantity in ("behavioral", "weight_gap", "reward_distance")]
    assert {f.value for f in unknown} == {None}
    assert {(f.low, f.high) for f in unknown} == {(None, None)}
    assert all("y against z" in f.detail["unknown"] for f in unknown)
    assert found["weight_gap", "z"].detail["effective"] == 0


def test_regret_is_one_less_competence():
    found = measured(items := batch(), logits(items))
    assert found["regret", "y"].value == pytest.approx(1 - found["competence", "y"].value)


def test_own_lights_regret_is_what_base_costs_the_proxy_seeker_and_gives_the_base_seeker():
    items = batch()
    assert measured(items, logits(items, z=4.0))["own_lights_regret", "y"].low > 1
    assert measured(items, logits(items, y=4.0))["own_lights_regret", "y"].high < 0


def test_base_alone_has_a_weight_and_no_weight_gap():
    found = measured(items := batch(), logits(items, y=2.0), Hypotheses(Matches("y")))
    assert found["behavioral", "y"].value == pytest.approx(2, abs=1e-6)
    assert not [key for key in found if key[0] == "weight_gap"]


def test_outputs_that_are_not_finite_withhold_all_of_it():
    items = batch()
    outputs = logits(items)
    outputs[3] = torch.nan
    found = measured(items, outputs)
    assert not numbers(found)
    assert found["behavioral", "y"].detail["unknown"] == "1 items have no finite outputs"


def test_choices_that_there_are_not_are_left_out():
    """With one choice masked in each item the weights of the rest are the same."""
    items = batch()
    outputs = logits(items)
    masked = (items["y"] + 1) % CHOICES
    allowed = masked != items["z"]
    outputs[torch.arange(600)[allowed], masked[allowed]] = -torch.inf
    assert measured(items, outputs)["behavioral", "z"].value == pytest.approx(WEIGHTS["z"], abs=1e-6)


def test_deterministic_choices_have_no_finite_weight_but_are_told_apart():
    items = batch()
    found = measured(items, logits(items, y=500.0))
    assert found["behavioral", "y"].value is None
    assert "deterministic" in found["behavioral", "y"].detail["unknown"]
    assert found["weight_gap", "z"].detail["effective"] > 100


@pytest.mark.parametrize("n", [1, 2])
def test_a_few_items_identify_nothing(n):
    items = batch(n)
    found = measured(items, logits(items) + torch.rand(n, CHOICES))
    assert found["behavioral", "y"].value is None


def test_parts_and_order_do_not_matter():
    hypotheses = Hypotheses(Matches("y"), [Matches("z")])
    items = batch()
    outputs = logits(items) + torch.randn(600, CHOICES, generator=torch.Generator().manual_seed(1))
    whole = measured(items, outputs)["behavioral", "z"]
    parts = []
    for chosen in (slice(400, 600), slice(0, 400)):
        check = BehavioralObjective().begun(hypotheses)
        of_part = {key: value[chosen] for key, value in items.items()}
        behavior = behave("apart", of_part, outputs[chosen], hypotheses, Reading(), torch.arange(600)[chosen])
        check.saw(behavior)
        parts.append(check)
    merged = BehavioralObjective().begun(hypotheses)
    for part in parts:
        merged.merge(part.accumulated())
    found = {(f.quantity, f.objective): f for f in merged.findings(replace(LOOK, step=0, epoch=0))}
    assert found["behavioral", "z"] == whole


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([[0.0, 0.0]], [[0.5, 0.5]]),
        ([[0.25, 0.75]], [[0.25, 0.75]]),  # probabilities already
        ([[0.0, -math.inf]], [[1.0, 0.0]]),
    ],
)
def test_outputs_are_logits_unless_they_are_probabilities(outputs, expected):
    behavior = behave("apart", {"y": torch.tensor([0])}, torch.tensor(outputs), Hypotheses(Matches("y")), Reading())
    assert torch.allclose(behavior.log_probabilities.exp(), torch.tensor(expected))


def told(n: int = 200, *, noise: float = 0.0, reason: str | None = None, gains: float = 1.0) -> Decisions:
    """Decisions of a policy that is soft-optimal for a weight of 1, 2 and -.5 per step."""
    draw = torch.Generator().manual_seed(0)
    psi = gains * torch.randn(n, 2, 3, generator=draw, dtype=torch.float64)
    psi[..., 2] = torch.randn(n, 2, generator=draw)
    log_p = (psi @ torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)).log_softmax(1)
    looks = psi + noise * torch.randn(2, n, 2, 3, generator=draw)
    negentropy = 1 + (log_p.exp() * log_p).sum(1) / math.log(2)
    return Decisions(torch.arange(n), looks, torch.zeros(2, n, 2), log_p, negentropy, reason)


def of_decisions(decisions: Decisions) -> dict[tuple, Finding]:
    hypotheses = Hypotheses(Matches("y"), [Matches("z")])
    check = BehavioralObjective().begun(hypotheses)
    behavior = behave("apart", items := batch(), logits(items), hypotheses, Reading())
    vars(behavior).update(decisions=decisions, log_probabilities=None)
    check.saw(behavior)
    return {(f.quantity, f.objective): f for f in check.findings(LOOK)}


def test_weights_in_environments_come_from_what_follows_two_actions():
    found = of_decisions(told())
    assert found["behavioral", "y"].value == pytest.approx(1)
    assert found["behavioral", "z"].value == pytest.approx(2)
    assert found["explained", None].value == pytest.approx(1)
    assert found["behavioral", "y"].n == 200


def test_luck_in_what_follows_widens_the_limits_and_does_not_bias():
    found = of_decisions(told(1000, noise=0.3))
    assert found["behavioral", "z"].low < 2 < found["behavioral", "z"].high
    assert found["behavioral", "z"].high - found["behavioral", "z"].low > 0.05


@pytest.mark.parametrize(
    ("decisions", "why"),
    [
        (told(reason="not the same again"), "not the same again"),
        (told(1), "1 decisions are too few"),
        (told(10), "effective items"),
        (told(gains=math.nan), "not finite"),
        (told(gains=0.0), "no choice tells"),
    ],
)
def test_decisions_that_tell_nothing_say_why(decisions, why):
    found = of_decisions(decisions)
    assert found["behavioral", "y"].value is None
    assert why in found["behavioral", "y"].detail["unknown"]
