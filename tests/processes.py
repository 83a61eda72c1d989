"""A training in several processes on one machine, and what each of them found."""

import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import forks
import toy
from accelerator import ACCELERATOR
from lightning_mesa import LoaderDistribution, MesaMonitor, read_journal
from lightning_mesa.data.items import ItemSource
from lightning_mesa.observe.sharding import whole
from lightning_mesa.report.dashboard import Dashboard
from namespace import Callback, CSVLogger, part, pl


class Normed(toy.ToyModel):
    """With BatchNorm, whose statistics each process has of its own between two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch["x"]), batch["y"])


class Sharded(Normed):
    """The same, each process with a part of every parameter; the norm's buffers are its own."""

    def configure_optimizers(self) -> Any:
        # With a state: Lightning cannot load that of an optimizer without one from a file.
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=0.5)

    def configure_model(self) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard  # from torch 2.6 on

        if not isinstance(self.net, FSDPModule):
            for layer in (self.net[0], self.net[3], self.net):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])
            self.net[0].set_modules_to_forward_prefetch([self.net[3]])


class Compiled(Sharded):
    """The same, with compiled layers."""

    def configure_model(self) -> None:
        for layer in (self.net[0], self.net[3]):
            layer.compile(backend="eager")
        super().configure_model()


class Tensors(Normed):
    """The same, each process with a part of the last layer's tensors, so that all see the same items."""

    def configure_model(self) -> None:
        from torch.distributed.tensor import DTensor, Replicate
        from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

        if not isinstance(self.net[3].weight, DTensor):
            plan = ColwiseParallel(output_layouts=Replicate())
            parallelize_module(self.net[3], self.device_mesh["tensor_parallel"], plan)


class Alone(Callback):
    """Scores the shifted items on this process alone, with the first process's model, after each step."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []
        self.statistics: list[Tensor] = []
        self.parts: list[list[Any]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Of which parameters the process holds a part, and whether FSDP is in the middle of something."""
        states = [part._get_fsdp_state() for part in pl_module.modules() if hasattr(part, "_get_fsdp_state")]
        pending = [group._all_gather_result is not None for state in states for group in state._fsdp_param_groups]
        of_states = [state._training_state.name for state in states]
        of_parameters = [hasattr(parameter, "full_tensor") for parameter in pl_module.parameters()]
        self.parts.append([*of_parameters, *of_states, *pending])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.statistics.append(pl_module.net[1].running_mean.clone())
        buffers = [buffer.clone() for buffer in pl_module.buffers()]
        if trainer.world_size > 1:
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, src=0)
        data = SHIFTED()
        pl_module.eval()
        x = data.x.to(next(pl_module.parameters()))
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            right = int((pl_module(x).argmax(1).cpu() == data.y).sum())
        pl_module.train()
        for buffer, kept in zip(pl_module.buffers(), buffers, strict=True):
            buffer.copy_(kept)
        self.counts.append((trainer.global_step, right))


class FailsOnOne(Callback):
    """Makes the monitor fail on one process, from the second step on."""

    def __init__(self, where: str, rank: int) -> None:
        self.where, self.rank = where, rank

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step != 2 or trainer.global_rank != self.rank:
            return
        if self.where == "forward":
            pl_module.net[2].register_forward_hook(_broken_once)
        else:
            owner, name = {"observe": (ItemSource, "behaviors"), "report": (Dashboard, "write")}[self.where]
            setattr(owner, name, _broken)


def _broken_once(layer: nn.Module, *_: Any) -> None:
    if not torch.is_grad_enabled():  # in the next look
        layer._forward_hooks.clear()
        _broken()


def _broken(*_: Any, **__: Any) -> None:
    raise OSError("the disk is full")


def SHIFTED() -> toy.ToyData:  # noqa: N802
    return toy.ToyData(397, confounded=False, seed=2)  # shared by two or three, some get one more


def made() -> Any:
    """An iterator, of which each look needs one of its own."""
    return iter(DataLoader(SHIFTED(), 50))


def monitor(**options: Any) -> MesaMonitor:
    shifted = {"apart": LoaderDistribution(SHIFTED(), batch_size=50)}
    return toy.monitor(**{"shifted": shifted} | options)


def train(folder: Path, world_size: int, options: dict[str, Any]) -> dict[str, Any]:
    """Train on this process of several; returns what it found.

    Args:
        folder: Where to write.
        world_size: Number of processes.
        options: ``watch``: whether to attach a monitor, and with which arguments; ``sharded``: arguments of
            ``ModelParallelStrategy``, where the model is to be sharded; ``model``: its class; ``ckpt_path``: what to go
            on from; others go to the trainer.
    """
    pl.seed_everything(0, verbose=False)
    watch = options.pop("watch", {})
    mesa = None if watch is None else monitor(**watch)
    sharded = options.pop("sharded", None)
    alone = Alone()
    callbacks = [alone, *options.pop("callbacks", [])] + ([] if mesa is None else [mesa])
    model = options.pop("model", Normed if sharded is None else Sharded)()
    ckpt_path = options.pop("ckpt_path", None)
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator=ACCELERATOR if torch.cuda.device_count() >= world_size else "cpu",
        devices=world_size,
        strategy=_strategy(world_size, sharded),
        callbacks=callbacks,
        **{
            "max_epochs": 6,
            "logger": CSVLogger(folder, name="", version="log"),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "log_every_n_steps": 1,
        }
        | options,
    )
    trainer.fit(
        model,
        DataLoader(toy.ToyData(256, confounded=True), 16),
        DataLoader(toy.ToyData(203, confounded=True, seed=1), 40),
        ckpt_path=ckpt_path,
    )
    return {
        "step": trainer.global_step,
        "weights": {name: whole(value).clone() for name, value in model.state_dict().items()},
        "metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
        "alone": alone.counts,
        "statistics": alone.statistics,
        "parts": alone.parts,
        "alerts": [] if mesa is None else [vars(alert) | {"checkpoint": None} for alert in mesa.alerts],
        "disabled": mesa is not None and mesa.disabled,
        "findings": []
        if mesa is None or mesa.run.last is None
        else [vars(finding) for finding in mesa.run.last[0].findings],
        "stride": None if mesa is None else mesa.run.timetable.budget.stride,
    }


def _strategy(world_size: int, sharded: dict[str, Any] | None) -> Any:
    if sharded is None:
        return "ddp" if world_size > 1 else "auto"
    sizes = {"data_parallel_size": world_size, "tensor_parallel_size": 1}
    return part("strategies").ModelParallelStrategy(**sizes | sharded)


def run(folder: Path, world_size: int, seconds: float = forks.HANG, **options: Any) -> list[dict[str, Any]]:
    """Train in processes of their own; returns what each of them found, in the order of their ranks.

    Raises:
        TimeoutError: If they hang.
        RuntimeError: If one fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = [partial(_one, rank, folder, world_size, options) for rank in range(world_size)]
    ended = forks.run(*ranks, seconds=seconds)
    if any(process.returncode for process in ended):
        raise RuntimeError("\n".join(process.stderr[-4000:] for process in ended))
    return [process.value for process in ended]


def _one(rank: int, folder: Path, world_size: int, options: dict[str, Any]) -> dict[str, Any]:
    """Train as one of several, which meet by a file: no port can be taken by another group."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world_size)}
    rank_zero_only.rank = rank
    if world_size == 1:
        return train(folder, world_size, options)
    store = torch.distributed.FileStore(str(folder / "store"), world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    found = train(folder, world_size, options)
    torch.distributed.destroy_process_group()
    return found


def launch(folder: Path, world_size: int, **options: Any) -> list[dict[str, Any]]:
    """The same by a script of which Lightning starts the other processes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.pickle").write_bytes(pickle.dumps(options))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), str(world_size)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=forks.HANG)
    assert done.returncode == 0, done.stderr[-4000:]
    return [pickle.loads((folder / f"rank{rank}.pickle").read_bytes()) for rank in range(world_size)]


def assert_each_item_counts_once(folder: Path, alone: Any) -> None:
    """After the first look, counts of hits are those that one process finds on all items with the same weights.

    Args:
        folder: Of the run.
        alone: Pairs of a step and the hits of the whole model on the shifted items there.
    """
    findings = read_journal(folder / "log/mesa/findings.jsonl")
    counted = {
        f["step"]: f["estimate"]["counts"][1]
        for f in findings
        if f["quantity"] == "competence" and f["objective"] == "y" and f["distribution"] == "apart"
    }
    del counted[0]
    assert len(counted) > 5
    assert counted.items() <= dict(alone).items()
    scored = [f for f in findings if f["quantity"] == "score"]
    assert {f["n"] for f in scored if f["distribution"] == "apart"} == {397}
    assert {f["n"] for f in scored if f["distribution"] == "val"} == {203}


if __name__ == "__main__":
    from processes import train  # by the name that pickled objects know

    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    found = train(target, int(sys.argv[2]), pickle.loads((target / "options.pickle").read_bytes()))
    (target / f"rank{os.environ.get('LOCAL_RANK', '0')}.pickle").write_bytes(pickle.dumps(found))
