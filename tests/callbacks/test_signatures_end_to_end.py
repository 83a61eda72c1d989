"""Each further signature on a run that shows it, and on one that does not."""

import pytest
import torch

import toy
from lightning_mesa import ScoreFunction
from quick import quick


class Grouped(toy.ToyData):
    """Items with two kinds of metadata; where both are 1, the label is another one."""

    def __init__(self, n, *, broken, seed=2):
        super().__init__(n, confounded=True, seed=seed)
        self.a, self.b = torch.arange(n) % 2, torch.arange(n) // 2 % 2
        self.y = torch.where((self.a * self.b == 1) & broken, (self.y + 1) % 4, self.y)

    def __getitem__(self, i):
        return super().__getitem__(i) | {"a": self.a[i], "b": self.b[i]}


def _alerts(mesa, signature):
    return [alert for alert in mesa.alerts if alert.signature == signature]


@pytest.mark.parametrize("broken", quick([True, False], True))
def test_a_slice_on_which_base_is_lost_is_found_and_named(tmp_path, broken):
    """Neither key alone shows all of it; the intersection is found on one half and tested on the other."""
    mesa = toy.monitor(
        reference={"val": toy.DataLoader(Grouped(800, broken=False, seed=1), 100)},
        shifted={"sliced": Grouped(800, broken=broken)},
        proxies=[],
        groups=["a", "b"],
    )
    toy.fit(tmp_path, mesa, max_epochs=15)
    groups = {alert.group for alert in _alerts(mesa, "slice_failure") if alert.distribution == "sliced"}
    assert groups == ({"a.1", "b.1", "a.1+b.1"} if broken else set())
    if broken:
        by_group = {alert.group: alert.effect for alert in _alerts(mesa, "slice_failure")}
        assert by_group["a.1+b.1"] > by_group["a.1"]


def _hide_the_strong_cue(batch):
    return batch | {"x": torch.cat([batch["x"][:, :4], torch.zeros_like(batch["x"][:, 4:])], 1)}


@pytest.mark.parametrize(
    ("cue", "depends"), [(_hide_the_strong_cue, True), pytest.param(dict, False, marks=pytest.mark.slow)]
)
def test_behavior_that_depends_on_a_cue_raises_cue_dependence(tmp_path, cue, depends):
    mesa = toy.monitor(cue=cue)
    toy.fit(tmp_path, mesa, max_epochs=15)
    alerts = _alerts(mesa, "cue_dependence")
    assert bool(alerts) == depends
    if depends:
        assert alerts[0].severity == "alert"
        assert "the cue is there" in alerts[0].message


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "extreme"), [(5.0, True), pytest.param(1.0, False, marks=pytest.mark.slow)])
def test_outputs_beyond_the_reference_raise_extremal_behavior(tmp_path, factor, extreme):
    far = toy.ToyData(400, confounded=False, seed=2)
    far.x = far.x * factor
    mesa = toy.monitor(shifted={"far": far})
    toy.fit(tmp_path, mesa, max_epochs=15)
    assert bool(_alerts(mesa, "extremal_behavior")) == extreme


@pytest.mark.slow
@pytest.mark.parametrize("apart", quick([True, False], True))
def test_a_proxy_followed_on_the_reference_itself_is_a_warning(tmp_path, apart):
    """The paper's early-in-training case: training goes by the proxy, and the reference tells."""

    class ByProxy(toy.ToyModel):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch | {"y": batch["z"]}, batch_idx)

    mesa = toy.monitor(reference={"val": toy.loader(400, confounded=not apart, seed=1)})
    toy.fit(tmp_path, mesa, model=ByProxy(), max_epochs=15)
    alerts = _alerts(mesa, "proxy_on_reference")
    assert [(a.distribution, a.proxy, a.severity) for a in alerts] == ([("val", "z", "warning")] if apart else [])


@pytest.mark.slow
@pytest.mark.parametrize("capable", quick([True, False], True))
def test_a_witness_tells_a_lost_objective_from_a_lost_capability(tmp_path, capable):
    """With base alone listed, a user's score of capability decides."""

    def decided(batch, outputs):
        return outputs.argmax(1) == batch["z"] if capable else outputs.argmax(1) == batch["y"]

    mesa = toy.monitor(proxies=[], witness=ScoreFunction(decided, name="decided", chance=0.25))
    toy.fit(tmp_path, mesa, max_epochs=15)
    signatures = {alert.signature for alert in mesa.alerts}
    assert signatures == ({"objective_lost"} if capable else {"capability_failure"})
