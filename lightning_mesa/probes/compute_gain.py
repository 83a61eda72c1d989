"""Does more computation make decisions better where a rule does not do?"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.probes.controls import among, choices, mean_difference, mean_excess, numbered, random_signs, shares
from lightning_mesa.probes.probe import Given, Lazy, ModelUnderProbe, Outputs, Probe, of_estimate, without
from lightning_mesa.records import ProbeResult

BAR = 0.05
"""Decisions gain from computation if they are right this much more often with all steps than with a quarter."""


@dataclass(frozen=True)
class Puzzles:
    """Inputs that are hard, and what is right.

    Attributes:
        batch: A batch, as the model takes it from the monitor's distributions; or, of a policy, a function ``k ->``
            batch that begins with k steps without consequences.
        right: Objective -> ``[n, A]`` or ``[n, A, ...]`` bool, the choices that serve it.
        hard: ``[n, ...]`` bool, the decisions that no rule gets right; None for all.
        groups: ``[n]`` int64, puzzles of one origin have the same number; None where each is its own.
    """

    batch: Any
    right: Mapping[str, Tensor]
    hard: Tensor | None = None
    groups: Tensor | None = None


class ComputeGain(Probe):
    """How much more often decisions are right after K steps than after ``K / 4``.

    Only of networks that apply the same weights again and again, whose number of steps can be set, and of policies that
    can be given time by actions without consequences: elsewhere earlier readouts have no meaning, and the probe is not
    applicable. Gains are small and shrink late in training (Guez et al. 2019, arXiv:1901.03559; Taufeeque et al. 2024,
    arXiv:2407.15421), so each puzzle's gain is averaged over all looks so far; the value is the mean over puzzles.
    Null: the sign of each puzzle's gain by chance. ``detail`` has the gain ``now``, at this look, and that ``beyond``,
    from K to 2 K.

    Three forward passes over the puzzles.

    What it cannot see: search in a network that is not applied again, however deep. A network that needs its steps to
    carry information from one place to another gains too, so name as ``hard`` what a rule with all the information
    would get wrong. A loop that was trained at one number of steps alone may be undefined at fewer.

    Args:
        puzzles: The puzzles, or a function without arguments that makes them when training starts, or its import path.
        steps: Name of the attribute of the model that holds the number of steps, such as ``"net.steps"``; or the K to
            be given to the puzzles' ``batch``.
        outputs: ``(outputs, batch) -> [n, A, ...]``, where the monitor's own give something else.
        bar: The lower limit has to reach this.
        seed: Of the null.
    """

    name = "compute_gain"
    rung = 4

    puzzles = Lazy[Puzzles]()

    def __init__(
        self,
        puzzles: Given[Puzzles],
        steps: str | int,
        *,
        outputs: Outputs | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        super().__init__(outputs=outputs, bar=bar, seed=seed)
        self.puzzles = puzzles
        self.steps = steps
        self.forget()

    @property
    def objectives(self) -> Sequence[str]:
        """The objectives by which decisions are right."""
        return tuple(self.puzzles.right)

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse puzzles that do not fit together, and a number of steps that is not there.

        Raises:
            ConfigurationError: If shapes differ, or the model has no such attribute.
        """
        puzzles, of = self.puzzles, "ComputeGain"
        if not puzzles.right:
            raise ConfigurationError(f"{of}: right is empty: list at least base's.")
        first = next(iter(puzzles.right.values()))
        self.check_right("right", puzzles.right, first)
        n, positions = len(first), first.shape[2:]
        self.check_shapes(hard=(puzzles.hard, [n, *positions]), groups=(puzzles.groups, [n]))
        if isinstance(self.steps, str):
            held = getattr(*_owner(model.module, self.steps), None)
            if isinstance(held, bool) or not isinstance(held, int):
                raise ConfigurationError(
                    f"{of}: steps={self.steps!r} must name an attribute of {type(model.module).__name__} that holds "
                    f"a whole number, and it holds {shown(held)}."
                )
        elif not callable(puzzles.batch):
            raise ConfigurationError(
                f"{of}: with steps={shown(self.steps)} the puzzles' batch must be a function of the number of steps "
                "that come first."
            )
        return f"3 forward passes over {len(first)} puzzles"

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for each objective, of the whole model."""
        most = self._most(model)
        if most < 2:
            return [without("not_applicable", f"a quarter of {most} steps is no fewer")]
        few, many, twice = max(1, most // 4), most, 2 * most
        (early, layers), (late, all_layers), (later, _) = (self._chosen(model, k) for k in (few, many, twice))
        if new := sorted(all_layers - layers):
            reason = f"with more steps other layers are called, {', '.join(map(repr, new))}: weights are not tied"
            return [without("not_applicable", reason)]
        untrained = model.in_untrained(self, partial(self._gains, steps=(few, many)))
        self._looks += 1
        results = []
        for name, right in self.puzzles.right.items():
            less, more, beyond = (self._shares(chosen, right) for chosen in (early, late, later))
            if not len(more):
                results.append(without("underpowered", "no decision counts", objective=name))
                continue
            self._sums[name] = self._sums.get(name, torch.zeros_like(more)) + (more - less)
            gains = self._sums[name] / self._looks
            null = random_signs(gains, self.seed)
            detail = {"now": float((more - less).mean()), "beyond": float((beyond - more).mean())}
            detail |= {"steps": most, "looks": self._looks}
            estimate = mean_difference(gains, torch.zeros_like(gains))
            about: dict[str, Any] = {"objective": name, "detail": detail}
            results.append(of_estimate(estimate, null, len(gains), self.bar, untrained[name], **about))
        return results

    def _gains(self, model: ModelUnderProbe, steps: tuple[int, int]) -> dict[str, float]:
        """Mean gain for each objective, from the smaller number of steps to the larger."""
        (before, _), (after, _) = (self._chosen(model, k) for k in steps)
        rights = self.puzzles.right.items()
        return {name: mean_excess(self._shares(after, right), self._shares(before, right)) for name, right in rights}

    def _shares(self, chosen: Tensor, right: Tensor) -> Tensor:
        """``[G]`` how many of a group's hard decisions are right."""
        right = right.cpu()
        counted = right.any(1) if self.puzzles.hard is None else right.any(1) & self.puzzles.hard.cpu()
        return shares(among(right, chosen), counted, numbered(self.puzzles.groups, len(chosen)))

    def _most(self, model: ModelUnderProbe) -> int:
        return int(getattr(*_owner(model.module, self.steps))) if isinstance(self.steps, str) else self.steps

    def _chosen(self, model: ModelUnderProbe, steps: int) -> tuple[Tensor, set[str]]:
        like, batch = next(iter(self.puzzles.right.values())), self.puzzles.batch
        with _set(model.module, self.steps, steps) if isinstance(self.steps, str) else nullcontext():
            outputs, called = model.run_and_see(batch(steps) if callable(batch) else batch)
        return choices(outputs, f"ComputeGain, {steps} steps", like), called

    def forget(self) -> None:
        """Begin anew."""
        self._looks = 0
        self._sums: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """What all looks have given so far."""
        return {"looks": self._looks, "sums": dict(self._sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._looks, self._sums = state["looks"], dict(state["sums"])


def _owner(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    owner, _, name = path.rpartition(".")
    try:
        return module.get_submodule(owner), name
    except AttributeError as error:
        raise ConfigurationError(f"ComputeGain: steps={path!r}: {error}.") from error


@contextmanager
def _set(module: nn.Module, path: str, steps: int) -> Iterator[None]:
    owner, name = _owner(module, path)
    before = getattr(owner, name)
    setattr(owner, name, steps)
    try:
        yield
    finally:
        setattr(owner, name, before)
