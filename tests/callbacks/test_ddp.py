"""Several processes: the same numbers as one process would find, the same decisions, and no hang."""

import pytest
import torch
from torch.utils.data import DataLoader

import environments
import processes
import toy
from lightning_mesa import EnvDistribution, Reached, read_journal

THREE = pytest.param(3, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[2, THREE])
def watched(request, tmp_path_factory):
    """A run under the monitor, and the same without it."""
    folder = tmp_path_factory.mktemp(f"ddp{request.param}")
    watches = {"on": {"every_n_steps": 3}, "off": None}
    runs = [processes.run(folder / name, request.param, watch=watch) for name, watch in watches.items()]
    return folder / "on", *runs


def test_training_is_bitwise_the_same(watched):
    _, on, off = watched
    for mine, theirs in zip(on, off, strict=True):
        for name, value in theirs["weights"].items():
            assert torch.equal(mine["weights"][name], value), name
        assert mine["step"] == theirs["step"]
        assert all(map(torch.equal, mine["statistics"], theirs["statistics"]))
    # BatchNorm statistics are each process's own: the comparison notices if the monitor makes them alike.
    assert not torch.equal(on[0]["statistics"][2], on[1]["statistics"][2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world_size", "watch", "options"),
    [
        (2, {}, {"precision": "bf16-mixed"}),
        (2, {"every_n_steps": 2}, {"accumulate_grad_batches": 2, "precision": "bf16-true"}),
        (3, {"proxies": [], "every_n_steps": 5}, {"gradient_clip_val": 0.5}),
        (2, {"groups": ["y"], "max_overhead": 0.2, "every_n_steps": 1}, {}),
    ],
)
def test_training_is_bitwise_the_same_whatever_the_precision_and_what_is_watched(tmp_path, world_size, watch, options):
    options["max_epochs"] = 2
    on = processes.run(tmp_path / "on", world_size, watch=watch, **options)
    off = processes.run(tmp_path / "off", world_size, watch=None, **options)
    for mine, theirs in zip(on, off, strict=True):
        assert not mine["disabled"]
        assert all(torch.equal(mine["weights"][name], value) for name, value in theirs["weights"].items())
        assert all(map(torch.equal, mine["statistics"], theirs["statistics"]))


def test_all_processes_find_the_same_and_what_one_alone_would(watched):
    folder, on, _ = watched
    for other in on[1:]:
        assert other["findings"] == on[0]["findings"]
        assert other["alerts"] == on[0]["alerts"]
    assert on[0]["alerts"]
    processes.assert_each_item_counts_once(folder, on[0]["alone"])


def test_each_finding_is_written_once(watched):
    folder, on, _ = watched
    alerts = read_journal(folder / "log/mesa/alerts.jsonl")
    assert [alert["signature"] for alert in alerts] == [alert["signature"] for alert in on[0]["alerts"]]


@pytest.mark.parametrize("world_size", [2, THREE])
def test_groups_slices_readouts_and_extremes_do_not_depend_on_the_number_of_processes(tmp_path, world_size):
    """The halves of the items that searches and readouts use, too: at the look before training."""

    def first_look(world_size):
        folder = tmp_path / str(world_size)
        processes.run(folder, world_size, watch={"groups": ["y", "z"], "proxies": []}, max_steps=1)
        return [f for f in read_journal(folder / "log/mesa/findings.jsonl") if f["step"] == 0]

    alone = first_look(1)
    for mine, theirs in zip(first_look(world_size), alone, strict=True):
        assert mine["quantity"] == theirs["quantity"]
        assert mine["n"] == theirs["n"]
        # Probabilities are single precision, and their last digits depend on the batch they were computed in.
        most = 1e-7 if mine["measure"] == "behavioral_objective" else 1e-12
        for key in ("value", "low", "high"):
            assert mine[key] == pytest.approx(theirs[key], abs=most), mine
    assert {"slice", "readout", "extremal_excess"} <= {finding["quantity"] for finding in alone}


@pytest.mark.slow
def test_batches_of_the_users_own_and_full_ones_are_each_read_by_one_process(tmp_path):
    """And the findings are those of one process, also where there are fewer batches than processes."""
    data = processes.SHIFTED()
    shifted = {
        "own": toy.loader,
        "list": list(DataLoader(data, 50)),
        "made": processes.made,
        "full": DataLoader(data, 50, drop_last=True),
        "one": DataLoader(data, 300, drop_last=True),
    }

    def first_look(world_size):
        folder = tmp_path / str(world_size)
        processes.run(folder, world_size, watch={"shifted": shifted}, max_steps=1)
        return [f for f in read_journal(folder / "log/mesa/findings.jsonl") if f["step"] == 0]

    alone = first_look(1)
    for mine, theirs in zip(first_look(2), alone, strict=True):
        assert (mine["quantity"], mine["n"]) == (theirs["quantity"], theirs["n"])
        most = 1e-7 if mine["measure"] == "behavioral_objective" else 1e-12
        assert mine["value"] == pytest.approx(theirs["value"], abs=most), mine
    n = {f["distribution"]: f["n"] for f in alone if f["quantity"] == "score"}
    assert n == {"val": 203, "own": 256, "list": 397, "made": 397, "full": 350, "one": 300}


@pytest.mark.parametrize(
    ("where", "rank"), [("observe", 1), ("report", 0), pytest.param("report", 1, marks=pytest.mark.slow)]
)
def test_an_error_on_one_process_ends_the_monitor_on_all_and_not_the_training(tmp_path, where, rank):
    watch = {"on_alert": ["checkpoint", "stop"]}
    found = processes.run(tmp_path, 2, watch=watch, callbacks=[processes.FailsOnOne(where, rank)], max_epochs=3)
    assert [process["disabled"] for process in found] == [True, True]
    assert [process["step"] for process in found] == [24, 24]


def test_all_processes_stop_at_the_same_step_and_keep_the_healthy_checkpoint(tmp_path):
    found = processes.run(tmp_path, 2, watch={"on_alert": ["checkpoint", "stop"], "every_n_steps": 3}, max_epochs=20)
    assert len({process["step"] for process in found}) == 1
    assert found[0]["step"] < 160
    assert list((tmp_path / "log/mesa").glob("alert-*.ckpt"))


@pytest.mark.slow
def test_the_budget_is_decided_for_all_processes(tmp_path):
    watch = {"max_overhead": 0.05, "every_n_steps": 1}
    found = processes.run(tmp_path, 3, watch=watch, max_epochs=8)
    assert len({process["stride"] for process in found}) == 1
    assert found[0]["stride"] > 1
    assert not any(process["disabled"] for process in found)


@pytest.mark.slow
def test_episodes_do_not_depend_on_the_number_of_processes(tmp_path):
    """Each runs its share of them, with the seeds that they have in any case."""

    def first_look(world_size):
        where = {
            name: EnvDistribution(make, environments.padded, episodes=31, greedy=True)
            for name, make in (("reference", environments.TwoDoors), ("apart", environments.apart))
        }
        watch = {
            "base": Reached("goal"),
            "proxies": [Reached("red")],
            "inputs": None,
            "reference": where["reference"],
            "shifted": {"apart": where["apart"]},
        }
        found = processes.run(tmp_path / str(world_size), world_size, watch=watch, max_epochs=1)
        assert all(one["findings"] == found[0]["findings"] for one in found)
        assert not found[0]["disabled"]
        findings = read_journal(tmp_path / str(world_size) / "log/mesa/findings.jsonl")
        return [finding for finding in findings if finding["step"] == 0]

    alone = first_look(1)
    assert {finding["quantity"] for finding in alone} >= {"gap", "preference", "goal_failure"}
    for mine, theirs in zip(first_look(3), alone, strict=True):
        assert (mine["quantity"], mine["n"]) == (theirs["quantity"], theirs["n"])
        for key in ("value", "low", "high"):
            assert mine[key] == pytest.approx(theirs[key], abs=1e-12), mine


@pytest.mark.slow
def test_processes_that_lightning_starts_itself_find_the_same(tmp_path):
    """As a user's script does: run again by Lightning for each process but the first, which meet at a port."""
    options = {"watch": {"every_n_steps": 3}, "max_epochs": 2}
    forked = processes.run(tmp_path / "forked", 2, **options)
    launched = processes.launch(tmp_path / "launched", 2, **options)
    for mine, theirs in zip(launched, forked, strict=True):
        assert mine["findings"] == theirs["findings"]
        assert all(torch.equal(mine["weights"][name], value) for name, value in theirs["weights"].items())
