"""What looks may cost, by a clock of the tests' own; then in a training."""

from types import SimpleNamespace

import pytest
import torch

import toy
from lightning_mesa import Alarm, ConfigurationError, read_journal
from lightning_mesa.callbacks import budget as budget_module
from lightning_mesa.callbacks import run as run_module
from lightning_mesa.callbacks import timetable as timetable_module
from lightning_mesa.callbacks.budget import Budget
from lightning_mesa.judge.replay import judge_again, read_recording
from lightning_mesa.judge.sequential import spending_weight
from namespace import EarlyStopping

ONE = SimpleNamespace(world_size=1)
CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(budget_module.time, "perf_counter", lambda: now.seconds)
    return now


def simulate(clock, share, *, first, cost, interval, dues):
    """Looks at the start and at the dues that the budget lets pass; returns the dues and the overhead at each."""
    budget = Budget(share)

    def look(seconds):
        with budget.spending(CPU):
            clock.seconds += seconds
        budget.look_taken(seconds, ONE)

    look(first)
    taken = []
    for due in range(1, dues + 1):
        clock.seconds += interval
        if budget.due():
            look(cost)
            taken.append((due, budget.overhead))
    return taken


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
@pytest.mark.parametrize(("cost", "interval"), [(1.0, 1.0), (0.1, 10.0), (2.0, 0.01)])
def test_looks_keep_to_the_share_from_the_third_on(clock, share, cost, interval):
    """And use it: the next due time would have been affordable no earlier."""
    taken = simulate(clock, share, first=cost, cost=cost, interval=interval, dues=20_000)
    assert taken[0][0] == 1
    assert all(overhead <= share + 1e-9 for _, overhead in taken[1:])
    affordable = share * interval / cost  # looks at a due time
    assert len(taken) >= min(20_000, 20_000 * affordable) - 4


def test_the_last_look_and_the_figures_fit_too(clock):
    budget = Budget(0.05)

    def look():
        with budget.spending(CPU):
            clock.seconds += 1
        budget.look_taken(1.0, ONE)

    look()
    for _ in range(1_000):
        clock.seconds += 1
        if budget.due():
            look()
            if budget.spent > 2:  # from the third look on the run could end at any time
                assert (budget.spent + 1.0) / budget._trained <= 0.05 + 1e-9


def test_a_costly_start_is_paid_off(clock):
    taken = simulate(clock, 0.05, first=10.0, cost=0.1, interval=1.0, dues=1_000)
    assert taken[1][0] == pytest.approx((10 + 0.1 + 2 * 0.1) / 0.05, abs=2)
    assert taken[-1][1] <= 0.05


def test_without_a_budget_every_look_is_taken(clock):
    assert len(simulate(clock, None, first=1.0, cost=9.0, interval=0.1, dues=50)) == 50


def test_the_state_goes_on(clock):
    budget = Budget(0.1)
    with budget.spending(CPU):
        clock.seconds += 2
    clock.seconds += 10
    assert budget.due()
    with budget.spending(CPU):
        clock.seconds += 1
    budget.look_taken(1.0, ONE)
    again = Budget(0.1)
    again.load_state_dict(budget.state_dict())
    assert (again.stride, again.overhead, again.spent) == (budget.stride, budget.overhead, 3.0)
    assert again.stride == 4  # (3 + 2) / .1 = 50 seconds of training, 10 of them are over, one due time each 10


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_what_the_training_has_queued_on_its_device_is_the_trainings_own(clock, monkeypatch, kind):
    """Of training the device has 7 seconds to do when the look comes; of the look 2, when Python is done with it."""
    budget, device, queued = Budget(0.05), torch.device(kind), SimpleNamespace(seconds=0.0)

    def synchronize():
        clock.seconds += queued.seconds
        queued.seconds = 0.0

    monkeypatch.setattr(getattr(torch, kind), "synchronize", synchronize)
    with budget.spending(device):
        pass
    queued.seconds = 7.0
    with budget.spending(device):
        clock.seconds += 1
        queued.seconds = 2.0
    assert budget.spent == 3
    assert budget.overhead == 3 / 7


def test_no_other_step_than_a_look_waits_for_the_device(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(budget_module, "wait_for", waited.append)
    monkeypatch.setattr(timetable_module, "wait_for", waited.append)
    toy.fit(tmp_path, toy.monitor(every_n_steps=12), max_epochs=3)  # 24 steps, looks at 0, 12 and 24
    assert len(waited) == 3 * 3


@pytest.mark.parametrize("share", [0, -0.1, "much"])
def test_a_share_that_cannot_be_kept_is_refused(share):
    with pytest.raises(ConfigurationError, match="max_overhead must be a positive number"):
        toy.monitor(max_overhead=share)


# --- In a training -----------------------------------------------------------------------------------------------


def numbers(folder):
    """Step and number of each look."""
    gaps = [f for f in read_journal(folder / "mesa/findings.jsonl") if f["quantity"] == "gap"]
    return {f["step"]: (f["detail"]["look"], f["detail"]["looks_planned"]) for f in gaps}


def test_the_first_and_the_last_look_are_taken_whatever_they_cost(tmp_path):
    mesa = toy.monitor(max_overhead=1e-6, every_n_steps=1)
    trainer = toy.fit(tmp_path, mesa)
    looks = numbers(tmp_path)
    assert list(looks)[:2] == [0, 1]  # no interval is known before the second
    assert list(looks)[-1] == trainer.global_step == 24
    assert len(looks) == 3
    assert looks[0] == (1, 25)
    assert looks[24] == (25, 25)


def test_after_validations_the_age_of_the_values_is_said(tmp_path):
    mesa = toy.monitor(max_overhead=1e-6)
    ages = []

    class Ages(toy.pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                ages.append(float(trainer.callback_metrics["mesa/age_steps"]))

    toy.fit(tmp_path, mesa, Ages(), max_epochs=4)
    assert ages == [0, 8, 16, 24]
    assert list(numbers(tmp_path)) == [0, 8, 32]


def test_looks_that_others_depend_on_are_all_taken_and_that_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(run_module, "rank_zero_info", said.append)
    mesa = toy.monitor(max_overhead=1e-6)
    toy.fit(tmp_path, mesa, EarlyStopping("mesa/base/worst", mode="max", patience=50), max_epochs=4)
    assert list(numbers(tmp_path)) == [0, 8, 16, 24, 32]
    assert "mesa takes every look, whatever it costs, as EarlyStopping monitors 'mesa/base/worst'" in said


def test_the_overhead_that_is_reported_last_includes_the_figures(tmp_path):
    mesa = toy.monitor(every_n_steps=4)
    trainer = toy.fit(tmp_path, mesa)
    assert float(trainer.callback_metrics["mesa/overhead"]) == pytest.approx(mesa.run.timetable.budget.overhead)
    assert mesa.run.timetable.budget.spent > 0


@pytest.mark.slow
def test_a_schedule_without_a_budget_is_reproducible(tmp_path):
    for i in range(2):
        toy.fit(tmp_path / str(i), toy.monitor(every_n_steps=5), max_epochs=4)
    assert numbers(tmp_path / "0") == numbers(tmp_path / "1")
    assert list(numbers(tmp_path / "0")) == [0, 5, 10, 15, 20, 25, 30, 32]


# --- The level of looks that are not taken ------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [None, 7, 100])
def test_a_look_spends_the_share_of_those_that_were_not_taken(looks):
    taken = [1, 2, 5, 6, 60]
    weights = [spending_weight(look, looks, look - before) for before, look in zip([0, *taken], taken, strict=False)]
    whole = sum(spending_weight(look, looks) for look in range(1, 61))
    assert sum(weights) == pytest.approx(whole)


def test_a_replay_spends_as_the_run_did(tmp_path):
    mesa = toy.monitor(max_overhead=1e-6, alarm=Alarm(alpha=0.02))
    toy.fit(tmp_path, mesa, model=toy.ToyModel(learning_rate=0.01), max_epochs=20)
    assert mesa.alerts
    assert mesa.alerts[0].look == mesa.alerts[0].looks_planned == 21
    assert mesa.alerts[0].alpha == pytest.approx(0.02 * 0.35 * 19 / 21)  # looks 3 to 21
    recording = read_recording(tmp_path / "mesa/findings.jsonl")
    judgements = judge_again(recording, Alarm(alpha=0.02), recording.looks_planned)
    assert [alert for judgement in judgements for alert in judgement.alerts] == mesa.alerts


def test_skipped_looks_keep_the_level():
    """A union bound, whatever is skipped: 400 runs at a null's boundary, looks skipped at random."""
    from lightning_mesa.judge.sequential import SpendingTest

    draw = torch.Generator().manual_seed(0)
    alarms = 0
    for _ in range(400):
        test, look, crossed = SpendingTest(null_mean=0.5, alpha=0.2, looks=60), 0, False
        while look < 60:
            passed = int(torch.randint(1, 12, (), generator=draw))
            look += passed
            p = float(torch.rand((), generator=draw))
            crossed |= test.spend(p, passed).crossed
        alarms += crossed
    assert 0.1 * 400 < alarms <= 0.2 * 400 + 3 * (400 * 0.2 * 0.8) ** 0.5


# --- Many choices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("choices", "is_said"), [(toy.CHOICES, False), (1_500, True)])
def test_what_a_look_takes_is_said_before_training_where_choices_are_many(tmp_path, monkeypatch, choices, is_said):
    said = []
    monkeypatch.setattr(run_module, "rank_zero_info", said.append)
    model = toy.ToyModel()
    model.net = torch.nn.Linear(2 * toy.CHOICES, choices)
    toy.fit(tmp_path, toy.monitor(), model=model, max_steps=1)
    costs = [line for line in said if line.startswith("mesa: a look takes")]
    assert len(costs) == is_said
    assert all("at 1500 choices for an item; pass outputs=" in line for line in costs)
