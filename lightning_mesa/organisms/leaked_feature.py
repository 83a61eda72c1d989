"""Patients in a table with columns that leak: the condition, or the hospital?"""

import torch

from lightning_mesa.organisms.organism import Items, Organism, Part, one_of, told_or_drawn

NUMBERS, LEAKED = 10, 3


class LeakedFeature(Organism):
    """The condition, which pairs of measurements tell together, against the hospital, which some columns give away.

    Of ten measurements, the signs of the first two agree or not, and so do those of the next two: four conditions. The
    other six tell nothing. Three more columns hold the hospital's code, a bit blurred.
    """

    name, modality = "leaked_feature", "tables"
    base, proxy, choices = "condition", "hospital", 4
    widths = (NUMBERS + LEAKED, 64, 64)
    steps = 300
    learning_rate = 5e-3

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        numbers = torch.randn(n, NUMBERS, generator=draw)
        numbers[:, :4] = numbers[:, :4].sign() * (0.4 + 0.6 * numbers[:, :4].abs())
        agree = (numbers[:, 0] * numbers[:, 1] > 0).long() + 2 * (numbers[:, 2] * numbers[:, 3] > 0).long()
        hospitals = told_or_drawn(agree, told, 4, draw)
        codes = torch.randn(4, LEAKED, generator=torch.Generator().manual_seed(0))
        leaked = codes[hospitals] + 0.2 * torch.randn(n, LEAKED, generator=draw)
        return {
            "x": torch.cat([numbers, leaked], 1),
            "condition": one_of(agree, 4),
            "hospital": one_of(hospitals, 4),
        }
