"""A look waits for the device once for many batches: what makes Python wait is counted, here on the CPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import toy
from lightning_mesa import LoaderDistribution, Matches, NegativeLoss, ScoreFunction
from lightning_mesa.data import items
from lightning_mesa.probes import Decodability
from quick import quick

READ = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
FETCHED = ("cpu", "tolist", "numpy")


class Reads(TorchDispatchMode):
    """Counts what needs a value: ``item``, ``bool``, ``float``, ``int``, masks as indices."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.count += by_mask or func.overloadpacket.__name__ in READ
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits(tmp_path, monkeypatch):
    """How often a look waits while items are read, by the size of batches and the monitor's options."""

    def count(size, **options):
        reads, behaviors = Reads(), items.ItemSource.behaviors

        def watched(source, context):
            seen = behaviors(source, context)
            while True:
                with reads, monkeypatch.context() as patch:
                    for name in FETCHED:
                        patch.setattr(torch.Tensor, name, counting(getattr(torch.Tensor, name)))
                    behavior = next(seen, None)
                if behavior is None:
                    return
                yield behavior

        def counting(method):
            def call(tensor, *args, **options):
                reads.count += 1
                return method(tensor, *args, **options)

            return call

        shifted = options.pop("shifted", {"apart": DataLoader(toy.ToyData(120, confounded=False, seed=2), size)})
        with monkeypatch.context() as patch:
            patch.setattr(items.ItemSource, "behaviors", watched)
            monitor = toy.monitor(
                reference=LoaderDistribution(toy.ToyData(120, confounded=True, seed=1), batch_size=size),
                shifted=shifted,
                **options,
            )
            toy.fit(tmp_path / str(size), monitor, max_steps=1)
        return reads.count

    return count


def loss(batch, outputs):
    return (outputs[:, 0] - batch["y"]) ** 2


def confidence(batch, outputs):
    return outputs.softmax(1).amax(1)


WATCHED = {
    "usual": {},
    "four objectives": {
        "proxies": [Matches("z"), Matches(lambda batch: 3 - batch["y"], "mirrored"), ScoreFunction(confidence)]
    },
    "a loss": {"base": NegativeLoss(loss, (0, 100), "y"), "proxies": []},
    "a witness": {"proxies": [], "witness": ScoreFunction(confidence)},
    "groups": {"groups": ["y", "z"]},
    "a cue": {"cue": lambda batch: batch | {"x": -batch["x"]}},
    "layers read": {"probes": [Decodability("net")]},
}


@pytest.mark.parametrize("what", quick(WATCHED, "usual", "groups", "layers read"))
def test_the_number_of_waits_does_not_depend_on_the_number_of_batches(waits, what):
    options = WATCHED[what]
    assert waits(4, **options) == waits(40, **options)


@pytest.mark.filterwarnings("ignore:.*reaches its ceiling")
def test_a_part_of_the_items_waits_no_more(waits):
    def parts(size):
        data = DataLoader(toy.ToyData(120, confounded=False, seed=2), size)
        wheres = {"all": None, "some": {"y": 1}, "conflict": "conflict", "own": lambda batch: batch["z"] > 1}
        return {name: LoaderDistribution(data, where=where) for name, where in wheres.items()}

    assert waits(4, shifted=parts(4)) == waits(40, shifted=parts(40))
