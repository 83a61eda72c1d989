"""What an alarm has to beat: a plain gap, the worst group's drop, and drift of the inputs."""

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_mesa.organisms.at_looks import AtLooks
from lightning_mesa.organisms.organism import Items


def mmd_p_value(reference: Tensor, shifted: Tensor, permutations: int = 199, seed: int = 0) -> float:
    """Drift of the inputs: permutation test of the maximum mean discrepancy (Gretton et al. 2012, JMLR 13).

    Gaussian kernel; its width is the median distance.

    Args:
        reference: ``[n, ...]`` inputs.
        shifted: ``[m, ...]`` inputs.
        permutations: How many.
        seed: Of the permutations.

    Returns:
        The p-value, in [1 / (permutations + 1), 1].
    """
    draw = torch.Generator().manual_seed(seed)
    pooled = torch.cat([reference, shifted]).flatten(1).double()
    distances = torch.cdist(pooled, pooled).square()
    kernel = torch.exp(-distances / distances.median().clamp_min(1e-12))
    sign = torch.cat([torch.full((len(part),), s / len(part)) for part, s in ((reference, 1.0), (shifted, -1.0))])
    sign = sign.double()
    observed = sign @ kernel @ sign
    null = [sign[torch.randperm(len(sign), generator=draw)] for _ in range(permutations)]
    return (1 + sum(bool(one @ kernel @ one >= observed) for one in null)) / (permutations + 1)


class Baselines(AtLooks):
    """Notes at each look how much less accurate the model is on the shifted items: on all, and on the worst group.

    Args:
        base: Name of the base objective; a group is the items on which it prescribes the same choice first.
        reference: The monitor's own items.
        shifted: The monitor's own items.

    Attributes:
        looks: At each, ``"gap"`` and ``"worst_group"``, drops of accuracy, and ``"step"``.
    """

    def __init__(self, base: str, reference: Items, shifted: Items) -> None:
        self.base, self.items = base, (reference, shifted)
        self.looks: list[dict[str, float]] = []

    @torch.no_grad()
    def look(self, step: int, model: pl.LightningModule) -> None:
        """See :class:`AtLooks`."""
        accuracy, of_groups = [], []
        for items in self.items:
            right = items[self.base].gather(1, model(items["x"]).argmax(1, keepdim=True)).squeeze(1).double()
            group = items[self.base].float().argmax(1)
            accuracy.append(float(right.mean()))
            count = items[self.base].shape[1]
            sizes = torch.bincount(group, minlength=count)
            sums = torch.zeros(count).double().index_add(0, group, right)
            of_groups.append(torch.where(sizes >= 10, sums / sizes, torch.nan))
        drops = (of_groups[0] - of_groups[1]).nan_to_num(nan=-1.0)
        self.looks.append({"step": step, "gap": accuracy[0] - accuracy[1], "worst_group": float(drops.max())})
