"""Models of which each process holds a part: the same numbers as of a whole one, the same decisions, and no hang."""

import pytest
import torch
from torch.utils.data import Subset

import environments
import processes
import toy
from lightning_mesa import Distribution, EnvDistribution, LoaderDistribution, Reached, Source, behave, read_journal
from lightning_mesa.probes import Decodability, Diagnostics, Patches, Retargeting
from namespace import ModelCheckpoint

torch_fsdp = pytest.importorskip("torch.distributed.fsdp")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(torch_fsdp, "fully_shard"), reason="FSDP2 came with torch 2.6"),
]

WHOLE_FILE = {"save_distributed_checkpoint": False}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run under the monitor in two processes, and the same without it."""
    folder = tmp_path_factory.mktemp("sharded")
    watches = {"on": {"every_n_steps": 3}, "off": None}
    runs = [processes.run(folder / name, 2, watch=watch, sharded={}, max_epochs=3) for name, watch in watches.items()]
    return folder / "on", *runs


def same_training(on, off, *, saved=False):
    """Saving a checkpoint lets go of gathered parameters, whoever does it."""
    for mine, theirs in zip(on, off, strict=True):
        assert mine["step"] == theirs["step"]
        assert saved or mine["parts"] == theirs["parts"]
        assert all(torch.equal(mine["weights"][name], value) for name, value in theirs["weights"].items())
        assert all(map(torch.equal, mine["statistics"], theirs["statistics"]))


def test_training_is_bitwise_the_same(watched):
    _, on, off = watched
    assert not on[0]["disabled"]
    same_training(on, off)
    # BatchNorm statistics are each process's own: the comparison notices if the monitor makes them alike.
    assert not torch.equal(on[0]["statistics"][2], on[1]["statistics"][2])


def test_all_processes_find_the_same_and_what_the_whole_model_would(watched):
    folder, on, _ = watched
    assert on[1]["findings"] == on[0]["findings"]
    assert on[1]["alerts"] == on[0]["alerts"]
    assert on[0]["alerts"]
    processes.assert_each_item_counts_once(folder, on[0]["alone"])


def first_look(folder, world_size, **options):
    found = processes.run(folder, world_size, max_steps=1, **options)
    assert not any(process["disabled"] for process in found)
    assert all(process["findings"] == found[0]["findings"] for process in found)
    return [f for f in read_journal(folder / "log/mesa/findings.jsonl") if f["step"] == 0]


def negated(batch):
    return batch | {"x": -batch["x"]}


TENSORS = {"sharded": {"data_parallel_size": 1, "tensor_parallel_size": 2}, "model": processes.Tensors}


@pytest.mark.parametrize("options", [{"sharded": {}}, TENSORS], ids=["data", "tensors"])
def test_findings_are_those_of_one_device(tmp_path, options):
    """Distributions of all sizes, one with an item for one process alone; parts of them, groups and a cue as well.

    Where processes hold parts of the same tensors, both see all items, and each is counted once.
    """
    shifted = {
        "apart": LoaderDistribution(processes.SHIFTED(), batch_size=50),
        "one": LoaderDistribution(Subset(processes.SHIFTED(), [7]), batch_size=50),
        "part": LoaderDistribution(toy.ToyData(151, confounded=False, seed=3), batch_size=10, where={"y": 1}),
    }
    watch = {"groups": ["y", "z"], "cue": negated, "shifted": shifted}
    alone = first_look(tmp_path / "one", 1, watch=watch)
    together = first_look(tmp_path / "two", 2, watch=watch, **options)
    for mine, theirs in zip(together, alone, strict=True):
        assert all(mine[key] == theirs[key] for key in ("quantity", "n", "distribution", "group"))
        # Probabilities are single precision, and their last digits depend on the batch they were computed in.
        most = 1e-6 if mine["measure"] == "behavioral_objective" else 1e-12
        for key in ("value", "low", "high"):
            assert mine[key] == pytest.approx(theirs[key], abs=most), mine
    assert {"slice", "cue_difference", "extremal_excess"} <= {finding["quantity"] for finding in alone}


@pytest.mark.parametrize(
    ("watch", "options"),
    [
        ({}, {"precision": "bf16-true", "num_sanity_val_steps": 0}),
        ({"every_n_steps": 1}, {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}),
        ({"on_alert": "checkpoint", "every_n_steps": 2, "proxies": []}, {"sharded": WHOLE_FILE}),
        ({"on_alert": "checkpoint", "max_overhead": 0.2, "every_n_steps": 1}, {}),
        ({"every_n_steps": 2}, {"model": processes.Compiled}),
    ],
)
def test_training_is_bitwise_the_same_whatever_the_precision_and_what_is_watched(tmp_path, watch, options):
    options = {"max_epochs": 2, "sharded": {}} | options
    on = processes.run(tmp_path / "on", 2, watch=watch, **options)
    off = processes.run(tmp_path / "off", 2, watch=None, **options)
    assert not on[0]["disabled"]
    same_training(on, off, saved="on_alert" in watch)


@pytest.mark.parametrize(("where", "rank"), [("observe", 1), ("forward", 0), ("forward", 1), ("report", 0)])
def test_an_error_on_one_process_ends_the_monitor_on_all_and_not_the_training(tmp_path, where, rank):
    """Also half way through a forward pass, where the other process is about to gather the next layer."""
    fails = [processes.FailsOnOne(where, rank)]
    on = processes.run(tmp_path / "on", 2, watch={"every_n_steps": 2}, sharded={}, callbacks=fails, max_epochs=2)
    off = processes.run(tmp_path / "off", 2, watch=None, sharded={}, max_epochs=2)
    assert [process["disabled"] for process in on] == [True, True]
    same_training(on, off)


@pytest.mark.parametrize("sharded", [{}, WHOLE_FILE], ids=["folder", "file"])
def test_all_processes_stop_at_the_same_step_and_training_goes_on_from_the_checkpoint(tmp_path, sharded):
    """Sharded checkpoints are folders; where the strategy assembles them, they are files."""
    watch = {"on_alert": ["checkpoint", "stop"], "every_n_steps": 3}
    found = processes.run(tmp_path / "stops", 2, watch=watch, sharded=sharded, max_epochs=20)
    assert found[0]["step"] == found[1]["step"] < 160
    (checkpoint,) = (tmp_path / "stops/log/mesa").glob("alert-*.ckpt")
    assert checkpoint.is_dir() == (sharded != WHOLE_FILE)
    options = {"sharded": sharded, "ckpt_path": checkpoint, "max_steps": found[0]["step"] + 2}
    on = processes.run(tmp_path / "on", 2, watch={"every_n_steps": 1}, **options)
    off = processes.run(tmp_path / "off", 2, watch=None, **options)
    assert on[0]["step"] == found[0]["step"] + 2
    same_training(on, off)


def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path):
    """From a file: in a folder BatchNorm statistics are those of any process."""
    kept = ModelCheckpoint(dirpath=tmp_path / "kept", filename="{epoch}", save_top_k=-1, every_n_epochs=3)
    options = {"watch": {"every_n_steps": 3}, "sharded": WHOLE_FILE, "enable_checkpointing": True}
    entire, _ = processes.run(tmp_path / "entire", 2, callbacks=[kept], **options)
    resumed = processes.run(tmp_path / "resumed", 2, ckpt_path=tmp_path / "kept/epoch=2.ckpt", **options)
    assert resumed[0]["findings"] == resumed[1]["findings"] == entire["findings"]
    assert resumed[0]["alerts"] == resumed[1]["alerts"] == entire["alerts"]
    assert all(torch.equal(resumed[0]["weights"][name], value) for name, value in entire["weights"].items())


class Asking(Source):
    """Calls the model in turn with as many batches as there are, on each process."""

    def __init__(self, name, batches):
        self.parts, self.batches = {name: None}, batches

    def behaviors(self, context):
        (name,) = self.parts
        data = processes.SHIFTED()
        mine = torch.tensor(context.share(len(data)))
        for part in mine.tensor_split(self.batches[context.trainer.global_rank]):
            batch = {"x": data.x[part], "y": data.y[part], "z": data.z[part]}
            yield behave(name, batch, context.pl_module(batch["x"]), context.hypotheses, context.reading, part)


class Asked(Distribution):
    def __init__(self, *batches):
        self.batches = batches

    def open(self, name, context):
        return Asking(name, self.batches)


def test_a_source_of_the_users_own_is_looked_at_where_it_calls_the_model_equally_often(tmp_path):
    own = first_look(tmp_path, 2, watch={"shifted": {"apart": Asked(3, 3)}}, sharded={})
    assert {f["n"] for f in own if f["distribution"] == "apart" and f["quantity"] == "score"} == {397}


@pytest.mark.parametrize(
    ("watch", "said"),
    [
        ({"shifted": {"apart": Asked(3, 2)}}, "process 0 is at layer 'net' and process 1 at .* make as many calls on"),
        (
            {
                "base": Reached("goal"),
                "proxies": [],
                "inputs": None,
                "reference": EnvDistribution(environments.TwoDoors, environments.padded),
                "shifted": {"apart": EnvDistribution(environments.apart, environments.padded)},
            },
            "'reference' has episodes, in which .* call the model differently often.* train the policy under DDP",
        ),
    ],
    ids=["own source", "episodes"],
)
def test_what_calls_the_model_differently_often_is_refused_before_training(tmp_path, watch, said):
    with pytest.raises(RuntimeError, match=said):
        processes.run(tmp_path, 2, watch=watch, sharded={})


def fixed(n=120):
    old = torch.arange(n) % toy.CHOICES
    right = torch.nn.functional.one_hot(old, toy.CHOICES).bool()
    data = toy.ToyData(n, confounded=False, seed=4)
    site = torch.ones(n, 2, dtype=torch.bool)
    return Patches({"x": data.x}, {"x": -data.x}, site, right, right.roll(1, 1), torch.ones(n, dtype=torch.bool))


def test_probes_that_read_go_on_and_those_that_copy_or_patch_say_that_they_cannot(tmp_path):
    probes = [Decodability("net.0"), Retargeting({"y": fixed()}, "net.0"), Diagnostics(fixed().base, "net.*")]
    found = processes.run(tmp_path / "on", 2, watch={"probes": probes, "proxies": []}, sharded={}, max_epochs=2)
    off = processes.run(tmp_path / "off", 2, watch=None, sharded={}, max_epochs=2)
    same_training(found, off)
    assert found[0]["findings"] == found[1]["findings"]
    of = {f["measure"]: f for f in found[0]["findings"]}
    assert of["decodability"]["detail"]["explained"] > 0.8
    assert not of["decodability"]["result"].positive
    assert of["decodability"]["result"].reason == "no untrained copy of a sharded model can be made to compare with"
    assert of["retargeting"]["result"].reason == "no layer of a sharded model can be patched"
    assert of["diagnostics"]["value"] is not None
    assert of["readout"]["detail"] == {"no_readout": "no untrained copy of a sharded model can be made"}


def without_norm(pl_module, batch):
    """Calls two layers and not what holds them."""
    return pl_module.net[3](pl_module.net[2](pl_module.net[0](batch["x"])))


def test_a_look_settles_neither_what_is_the_root_nor_what_is_gathered_when_training_begins(tmp_path):
    """FSDP takes the first module that is called for its root, and leaves the root's parameters gathered."""
    watch = {"forward": without_norm, "every_n_steps": 1, "reference": LoaderDistribution(processes.SHIFTED())}
    options = {"sharded": {}, "max_epochs": 1, "limit_val_batches": 0}
    on = processes.run(tmp_path / "on", 2, watch=watch, **options)
    off = processes.run(tmp_path / "off", 2, watch=None, **options)
    assert not on[0]["disabled"]
    same_training(on, off)
