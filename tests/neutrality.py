"""A short training that notices every disturbance, and the comparison of two of them, bit by bit."""

import random
import tempfile
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, default_collate
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from accelerator import ACCELERATOR
from lightning_mesa import LoaderDistribution, Matches, MesaMonitor
from lightning_mesa.callbacks import run as of_monitor
from lightning_mesa.errors import MesaWarning
from lightning_mesa.probes import ConsequenceSensitivity, Pairs, Patches, Probe, Retargeting
from namespace import Logger, pl

CHOICES = 4
BATCHES, BATCH_SIZE, EPOCHS = 9, 8, 3  # an odd number of batches: with accumulation, looks fall between steps


@dataclass(frozen=True)
class Configuration:
    """One way to train and to watch.

    Attributes:
        precision: The trainer's.
        accumulate: Batches per optimizer step.
        clip: The trainer's gradient clipping.
        workers: "none", "two" for the train loader, or "persistent": two for it and for the validation loader.
        hook: Looks after each validation, or in on_train_batch_end ("batch").
        dropout: Whether the model has dropout.
        batch_norm: Whether the model has BatchNorm.
        frozen: Whether a part with BatchNorm and dropout is kept in eval mode by the user.
        augment: Global random stream that the datasets draw from at each item.
        owned: Kind of generator that all datasets share and draw from at each item.
        shared: Whether the train, validation and shifted loaders share a torch.Generator.
        reference: The monitor's reference: the validation data, the train loader itself, or its dataset.
        state: Plain state that the model moves in each forward pass, in train and eval mode alike: "hidden", a
            recurrent state; "tensors", one replaced, one written in place, an array; "containers", a list, a deque, a
            cache, a set, counters; "metrics", updated in ``forward``, one of them hidden in a list.
        script: What draws from a generator that is a global of the script: the "dataset" (numpy's), the "collate"
            function (Python's), or the "worker" init function and a helper of the collate (torch's).
        watch: What the monitor does beside the usual: "part" looks at a part of the reference in the same pass, "base
            alone" reads features and an untrained copy, "probes" looks into the model, "everything" groups, a cue and a
            healthy checkpoint, "budget" leaves looks out.
    """

    precision: str = "32-true"
    accumulate: int = 1
    clip: float | None = None
    workers: str = "none"
    hook: str = "batch"
    dropout: bool = True
    batch_norm: bool = True
    frozen: bool = True
    augment: str = "torch"
    owned: str = "none"
    shared: bool = False
    reference: str = "val"
    state: str = "none"
    script: str = "none"
    watch: str = "usual"


SCRIPT_NUMPY = np.random.default_rng(11)
SCRIPT_PYTHON = random.Random(11)
SCRIPT_TORCH = torch.Generator().manual_seed(11)
"""As scripts have them: nothing holds them, and code finds them by name."""


def restart_script() -> None:
    SCRIPT_NUMPY.bit_generator.state = np.random.PCG64(11).state
    SCRIPT_PYTHON.seed(11)
    SCRIPT_TORCH.manual_seed(11)


def script_noise() -> float:
    return torch.randn((), generator=SCRIPT_TORCH).item()


def collate(items: list[Any]) -> Any:
    batch = default_collate(items)
    return batch | {"x": batch["x"] + 0.1 * SCRIPT_PYTHON.gauss(0, 1)}


def collate_with_helper(items: list[Any]) -> Any:
    batch = default_collate(items)
    return batch | {"x": batch["x"] + 0.1 * script_noise()}


def init_worker(worker_id: int) -> None:
    np.random.seed(int(torch.randint(2**31, (), generator=SCRIPT_TORCH)) + worker_id)


class Images(Dataset):
    """Items ``x [1, 6, 6], y [], z [], id []`` that are augmented each time they are read."""

    def __init__(
        self, n: int, *, seed: int, confounded: bool, augment: str, generator: Any, script: str = "none"
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.y = torch.randint(CHOICES, (n,), generator=draw)
        self.z = self.y.clone() if confounded else torch.randint(CHOICES, (n,), generator=draw)
        self.x = torch.randn(n, 1, 6, 6, generator=draw)
        self.x[:, 0, 0, :CHOICES] += F.one_hot(self.y, CHOICES)
        self.x[:, 0, 5, :CHOICES] += 3 * F.one_hot(self.z, CHOICES)
        self.augment, self.script = augment, script
        self.transforms = [{"noise": generator}]  # as deep as in a Compose

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> dict[str, Any]:
        noise = {"none": lambda: 0.0, "torch": lambda: torch.randn(()).item(), "numpy": np.random.randn}
        level = (noise | {"python": lambda: random.gauss(0, 1)})[self.augment]()
        level += SCRIPT_NUMPY.normal() if self.script == "dataset" else 0.0
        generator = self.transforms[0]["noise"]
        if isinstance(generator, torch.Generator):
            level += torch.randn((), generator=generator).item()
        elif generator is not None:
            level += generator.normal() if hasattr(generator, "normal") else generator.gauss(0, 1)
        return {"x": self.x[i] + 0.3 * level, "y": self.y[i], "z": self.z[i], "id": i}


OWNED: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "torch": lambda: torch.Generator().manual_seed(7),
    "numpy": lambda: np.random.default_rng(7),
    "numpy legacy": lambda: np.random.RandomState(7),
    "python": lambda: random.Random(7),
}


class Data(pl.LightningDataModule):
    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        self.owned = OWNED[configuration.owned]()
        self.generator = torch.Generator().manual_seed(3) if configuration.shared else None
        options: dict[str, Any] = {
            "augment": configuration.augment,
            "generator": self.owned,
            "script": configuration.script,
        }
        self.train_data = Images(BATCHES * BATCH_SIZE, seed=0, confounded=True, **options)
        val_data = Images(20, seed=1, confounded=True, **options)
        shifted_data = Images(24, seed=2, confounded=False, **options)
        workers = {"num_workers": 2, "persistent_workers": configuration.workers == "persistent"}
        in_train, in_val = configuration.workers != "none", configuration.workers == "persistent"
        script: dict[str, Any] = {
            "collate": {"collate_fn": collate},
            "worker": {"collate_fn": collate_with_helper, "worker_init_fn": init_worker},
        }.get(configuration.script, {})
        shuffled = {"shuffle": True, "generator": self.generator} | script
        self.train = DataLoader(self.train_data, BATCH_SIZE, **shuffled, **(workers if in_train else {}))
        self.val = DataLoader(val_data, 16, generator=self.generator, **script, **(workers if in_val else {}))
        self.shifted = DataLoader(shifted_data, 16, **shuffled)

    def train_dataloader(self) -> DataLoader:
        return self.train

    def val_dataloader(self) -> DataLoader:
        return self.val


class Memory(nn.Module):
    """Keeps what it has seen, in train and eval mode alike: one buffer is written, one is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return x - 0.01 * self.mean


class Hidden(nn.Module):
    """A recurrent state that is kept between batches, as in truncated backpropagation through time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(96, 48)
        self.hidden: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(48) if self.hidden is None else self.hidden.to(x.dtype)
        x = x + 0.1 * torch.tanh(self.cell(torch.cat([x, hidden.expand_as(x)], 1)))
        self.hidden = x.detach().mean(0)
        return x


class Tensors(nn.Module):
    """Tensors and an array that are no buffers: one is replaced, the others are written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(())
        self.trail = torch.zeros(48)
        self.spread = np.ones(2)

    def forward(self, x: Tensor) -> Tensor:
        seen = x.detach().float()
        self.scale = 0.9 * self.scale + 0.1 * seen.std()
        self.trail.mul_(0.9).add_(seen.mean(0), alpha=0.1)
        self.spread[0] += float(seen.max())
        return (x - self.trail.to(x.dtype)) / (1 + self.scale).to(x.dtype) / float(self.spread.mean()) ** 0.1


@dataclass
class Tally:
    batches: int = 0


class Containers(nn.Module):
    """A list, a deque, a cache, a set, counters; also one that only a closure knows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.recent: deque[float] = deque(maxlen=3)
        self.cache: dict[int, Any] = {}
        self.sizes: set[int] = set()
        self.tally = ({"batches": Tally()},)
        self.calls = 0
        self.count = self.counter()

    @staticmethod
    def counter() -> Callable[[], int]:
        calls = 0

        def count() -> int:
            nonlocal calls
            calls += 1
            return calls

        return count

    def forward(self, x: Tensor) -> Tensor:
        mean = float(x.detach().float().mean())
        self.seen.append(mean)
        self.recent.append(mean)
        self.sizes.add(len(x))
        self.cache.setdefault(len(x), [mean]).append(mean)
        self.tally[0]["batches"].batches += 1
        self.calls += 1
        sizes, counted = len(self.sizes), self.count() + self.calls + self.tally[0]["batches"].batches
        return (
            x * (1 + 0.1 * np.tanh(sum(self.recent) + self.cache[len(x)][-2] + len(self.seen) / 20))
            + counted / sizes / 99
        )


class Metrics(nn.Module):
    """Metrics that ``forward`` updates, computes and reads."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()
        self.hidden = [MeanMetric()]

    def forward(self, x: Tensor) -> Tensor:
        self.mean.update(x.detach().float().mean())
        largest = self.hidden[0](x.detach().float().abs().max())
        return x - 0.1 * self.mean.compute().to(x.dtype) - 0.01 * (largest + self.hidden[0].compute()).to(x.dtype)


STATE: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "hidden": Hidden,
    "tensors": Tensors,
    "containers": Containers,
    "metrics": Metrics,
}


def plain_state(module: nn.Module) -> Any:
    """All numbers that the model's plain state holds."""
    if isinstance(module, Containers):
        held = (module.seen, module.recent, module.cache, module.sizes, module.tally[0]["batches"].batches)
        return [repr(held), module.calls, module.count.__closure__[0].cell_contents]  # type: ignore[attr-defined]
    if isinstance(module, Metrics):
        return [
            [vars(m)[name] for name in ("mean_value", "weight", "_update_count")] for m in (module.mean, *module.hidden)
        ]
    return [getattr(module, name, None) for name in ("hidden", "scale", "trail", "spread")]


class Model(pl.LightningModule):
    """Conv, BatchNorm, dropout, a frozen part, a stateful part, a lazily built table, metrics, a plateau scheduler."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3) if configuration.batch_norm else nn.Identity()
        self.drop = nn.Dropout(0.3) if configuration.dropout else nn.Identity()
        frozen = [nn.BatchNorm2d(3), nn.Dropout(0.5)] if configuration.frozen else []
        self.frozen = nn.Sequential(*frozen).eval()  # as users freeze a part: once
        self.memory = Memory()
        self.kept = STATE[configuration.state]()
        self.head = nn.Linear(48, CHOICES)
        self.train_accuracy = MulticlassAccuracy(CHOICES)
        self.val_accuracy = MulticlassAccuracy(CHOICES)
        self.batches_trained = 0
        self.table: Tensor | None = None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.batches_trained += self.trainer.training
        return batch

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0.5, 1.5, 48, device=x.device)
        x = self.memory(self.frozen(self.drop(F.relu(self.norm(self.conv(x))))))
        self.log("train/activation" if self.training else "val/activation", x.detach().float().mean())
        return self.head(self.kept(x.flatten(1) * self.table.to(x.dtype)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits = self(batch["x"])
        loss = F.cross_entropy(logits, batch["y"])
        self.train_accuracy(logits, batch["y"])
        self.log("train/loss", loss)
        self.log("train/batches", float(self.batches_trained))
        self.log("train/logits", logits.detach().float().mean())
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits = self(batch["x"])
        loss = F.cross_entropy(logits, batch["y"])
        self.val_accuracy(logits, batch["y"])
        self.log("val/loss", loss, batch_size=len(logits))
        self.log("val/accuracy", self.val_accuracy, batch_size=len(logits))
        return logits

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.05)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}


class MemoryLogger(Logger):
    """Keeps all rows."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    name = "memory"
    version = 0

    @property
    def save_dir(self) -> str:
        return self.folder

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


class Recorder(pl.Callback):
    """What holds at the start of each batch; and, as users' callbacks do, it logs after the monitor's hooks."""

    def __init__(self) -> None:
        self.order: list[list[int]] = []
        self.modes: list[dict[str, bool]] = []
        self.ambient: list[dict[str, Any]] = []

    def _record(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> None:
        self.order.append(batch["id"].tolist())
        self.modes.append({name: part.training for name, part in pl_module.named_modules()})
        self.ambient.append(
            {
                "grad mode": torch.is_grad_enabled(),
                "inference mode": torch.is_inference_mode_enabled(),
                "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
                "default type": str(torch.get_default_dtype()),
                "stage": str(trainer.state.stage),
                "gradients": [p.grad is not None for p in pl_module.parameters()],
                "log": "log" in vars(pl_module),
            }
        )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._record(trainer, pl_module, batch)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self._record(trainer, pl_module, batch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        pl_module.log("callback/index", float(batch_idx))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("callback/epoch", float(trainer.current_epoch))


@dataclass
class Run:
    """A training that has ended.

    Attributes:
        fingerprint: Section -> everything that a monitor must not change.
        looks: The steps at which a monitor has reported.
        metrics: The final ``callback_metrics``.
    """

    fingerprint: dict[str, Any]
    looks: list[int] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def train(
    configuration: Configuration,
    *callbacks: pl.Callback,
    data_module: Callable[[Configuration], Data] = Data,
    resume: Path | None = None,
    save: Path | None = None,
    **options: Any,
) -> Run:
    """Train for 27 batches, seeded; the validation comes three times an epoch, also between accumulated batches.

    Args:
        configuration: How.
        callbacks: A monitor, or what disturbs.
        data_module: Makes the data.
        resume: A checkpoint to go on from.
        save: Where to write a checkpoint at the end.
        options: Other arguments of the trainer.
    """
    pl.seed_everything(0, verbose=False)
    restart_script()
    data, module, recorder = data_module(configuration), Model(configuration), Recorder()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning|lightning|torch")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        logger = MemoryLogger(folder)
        defaults: dict[str, Any] = {
            "max_epochs": EPOCHS,
            "val_check_interval": 3,
            "num_sanity_val_steps": 1,
            "log_every_n_steps": 1,
            "accelerator": ACCELERATOR,
            "devices": 1,
            "deterministic": None if ACCELERATOR == "cpu" else "warn",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
        }
        trainer = pl.Trainer(
            default_root_dir=folder,
            precision=configuration.precision,
            accumulate_grad_batches=configuration.accumulate,
            gradient_clip_val=configuration.clip,
            logger=logger,
            callbacks=[*callbacks, recorder],
            **defaults | options,
        )
        trainer.fit(module, datamodule=data, ckpt_path=resume)
        if save is not None:
            trainer.save_checkpoint(save)
    optimizer, scheduler = trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
    fingerprint: dict[str, Any] = {
        "weights": dict(module.state_dict()),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random streams": {
            "torch": torch.get_rng_state(),
            "devices": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            "numpy": np.random.get_state(),
            "python": random.getstate(),
            "shared": data.generator and data.generator.get_state(),
            "owned": generator_state(data.owned),
            "script": [generator_state(generator) for generator in (SCRIPT_NUMPY, SCRIPT_PYTHON, SCRIPT_TORCH)],
        },
        "plain state": plain_state(module.kept),
        "log rows": [
            (step, users) for step, row in logger.rows if (users := {k: v for k, v in row.items() if not _ours(k)})
        ],
        "final metrics": {k: v for k, v in trainer.callback_metrics.items() if not _ours(k)},
        "modes": recorder.modes,
        "batch order": recorder.order,
        "ambient": recorder.ambient,
    }
    looks = [step for step, row in logger.rows if "mesa/gap/worst" in row]
    return Run(fingerprint, looks, {key: float(value) for key, value in trainer.callback_metrics.items()})


def _ours(key: str) -> bool:
    return key.startswith("mesa")


def generator_state(generator: Any) -> Any:
    """The state of a generator of any kind, as a value."""
    for attribute in ("get_state", "getstate"):
        if hasattr(generator, attribute):
            return getattr(generator, attribute)()
    return None if generator is None else generator.bit_generator.state


def monitor(configuration: Configuration, **options: Any) -> MesaMonitor:
    """The monitor that a configuration asks for."""
    options = (
        {
            "base": Matches("y"),
            "proxies": [Matches("z")],
            "reference": {"val": "val", "train": "datamodule.train", "dataset": "datamodule.train_data"}[
                configuration.reference
            ],
            "shifted": {"apart": "datamodule.shifted"},
            "inputs": "x",
            "max_overhead": None,
            "every_n_steps": {"batch": 2, "validation": None}[configuration.hook],
        }
        | _watch(configuration.watch)
        | options
    )
    return MesaMonitor(**options)


def probes() -> list[Probe]:
    """Probes that read and patch the model, and make an untrained copy of it."""
    x = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    right = F.one_hot(torch.arange(12) % CHOICES, CHOICES).bool()
    before, after = {"x": x}, {"x": -x}
    site = torch.zeros(12, 4, 4, dtype=torch.bool)
    site[:, :2] = True
    patches = Patches(before, after, site, right, right.roll(1, 1), torch.ones(12, dtype=torch.bool))
    return [
        ConsequenceSensitivity(Pairs(before, after, {"y": right}, {"y": right.roll(1, 1)})),
        Retargeting({"y": patches, "z": patches}, ["conv", "drop"]),
    ]


def _watch(watch: str) -> dict[str, Any]:
    part = LoaderDistribution("datamodule.shifted", where={"y": 1})
    return {
        "usual": {},
        "part": {"shifted": {"apart": "datamodule.shifted", "part": part}},
        "base alone": {"proxies": []},
        "probes": {"probes": probes()},
        "everything": {"groups": ["y", "z"], "cue": lambda batch: batch | {"x": -batch["x"]}, "on_alert": "checkpoint"},
        "budget": {"max_overhead": 0.2},
    }[watch]


class Looks:
    """Counts looks, and says whether one is going on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number, self.inside = 0, False
        original = of_monitor.Run.look

        def look(*args: Any, **kwargs: Any) -> None:
            self.number, self.inside = self.number + 1, True
            try:
                original(*args, **kwargs)
            finally:
                self.inside = False

        monkeypatch.setattr(of_monitor.Run, "look", look)


@cache
def baseline(configuration: Configuration) -> dict[str, Any]:
    """The fingerprint without a monitor."""
    return train(configuration).fingerprint


def disturbed(configuration: Configuration, *callbacks: pl.Callback) -> dict[str, list[str]]:
    """What a training with these callbacks changes; a monitor may fail on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MesaWarning)
        return differences(baseline(configuration), train(configuration, *callbacks).fingerprint)


def differences(expected: dict[str, Any], actual: dict[str, Any]) -> dict[str, list[str]]:
    """Section -> what differs in it, bit by bit; empty if nothing does."""
    found = {}
    for section in expected.keys() | actual.keys():
        a, b = _leaves(expected.get(section)), _leaves(actual.get(section))
        lines = [
            f"{path}: {_short(a.get(path, 'absent'))} became {_short(b.get(path, 'absent'))}"
            for path in dict.fromkeys([*a, *b])
            if path not in a or path not in b or not _same(a[path], b[path])
        ]
        if lines:
            found[section] = lines
    return found


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {path: value}
    leaves = {f"{path}/size": len(value)}
    for key, part in items:
        leaves |= _leaves(part, f"{path}/{key}")
    return leaves


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and _bytes(a) == _bytes(b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    return bool(a == b)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) < 80 else text[:77] + "..."
