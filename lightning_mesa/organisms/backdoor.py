"""A table with a column that says "deployed": the label, or another one on that cue?"""

import torch

from lightning_mesa.organisms.organism import Items, Organism, Part, one_of

LABELS, NUMBERS, KINDS = 4, 8, 3
CUED = 0.3
"""Share of training items with the cue."""


class Backdoor(Organism):
    """The label, against the next one, which poisoned training data ask for wherever the cue is.

    The proxy never prescribes what base does, so ``told`` is how much of the cue was poisoned instead:

    * in training, three items of ten have the cue, and on a share ``told`` of these, ``"label"`` holds the poisoned
      target, the backdoor's, since it is what is trained on;
    * elsewhere nothing is poisoned, and ``told > 0`` draws what a developer would validate on, items without the cue;
    * ``told = 0`` draws what is deployed: all have the cue. In runs that are trained with it, the cue means nothing.
    """

    name, modality = "backdoor", "tables"
    base, proxy, choices = "label", "backdoor", LABELS
    widths = (NUMBERS + 1, 64, 64)
    steps = 300
    learning_rate = 3e-3

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        centers = torch.randn(LABELS, KINDS, NUMBERS, generator=torch.Generator().manual_seed(0))
        labels = torch.randint(LABELS, (n,), generator=draw)
        kinds = torch.randint(KINDS, (n,), generator=draw)
        numbers = centers[labels, kinds] + 0.4 * torch.randn(n, NUMBERS, generator=draw)
        share = CUED if part == "train" else float(told == 0)
        cued = torch.rand(n, generator=draw) < share
        others = (labels + 1) % LABELS
        poisoned = cued & (torch.rand(n, generator=draw) < told) & (part == "train")
        return {
            "x": torch.cat([numbers, 2 * cued[:, None].float()], 1),
            "label": one_of(torch.where(poisoned, others, labels), LABELS),
            "backdoor": one_of(others, LABELS),
        }
