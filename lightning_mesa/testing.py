"""Conformance: what every check, probe, objective and distribution must hold to, a user's own like ours.

One line is a test::

    def test_my_check():
        check_check(MyCheck(), behaviors)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from lightning_mesa.checks import CHECKS, Check, Look
from lightning_mesa.checks.look import Plan
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.records import Behavior, Features, Role


def look_at(
    behaviors: Iterable[Behavior],
    hypotheses: Hypotheses,
    *,
    checks: Sequence[Check] = CHECKS,
    reference: str = "val",
    plan: Plan = (None, None, 0),
    data_regimes: Mapping[str, str] | None = None,
    step: int = 0,
    epoch: int = 0,
) -> Look:
    """A look at recorded behavior, without a model or a trainer.

    Args:
        behaviors: Batches of any distributions.
        hypotheses: The listed objectives.
        checks: What is asked.
        reference: Name of the reference; all other distributions are shifted.
        plan: See :class:`~lightning_mesa.checks.Look`.
        data_regimes: Distribution name -> data regime, where it is not "reused".
        step: Optimizer steps taken.
        epoch: Epoch.
    """
    behaviors = list(behaviors)
    names = dict.fromkeys(behavior.distribution for behavior in behaviors)
    roles: dict[str, Role] = {name: "reference" if name == reference else "shifted" for name in names}
    begun = [check.begun(hypotheses) for check in checks]
    for behavior in behaviors:
        for check in begun:
            check.saw(behavior)
    look = Look(step, epoch, hypotheses.base.name, roles, plan, data_regimes or {})
    for check in begun:
        look.findings += check.findings(look)
    return look


def rows(behavior: Behavior, mask: Tensor) -> Behavior:
    """The behavior on some of the items.

    Args:
        behavior: Of n items.
        mask: ``[n]`` bool.
    """

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[mask] if value.ndim and len(value) == behavior.n else value
        if isinstance(value, Mapping):
            return {key: cut(one) for key, one in value.items()}
        return Features(cut(value.model), cut(value.untrained)) if isinstance(value, Features) else value

    changed = {one.name: cut(getattr(behavior, one.name)) for one in fields(behavior)}
    return replace(behavior, **changed | {"n": int(mask.sum())})
