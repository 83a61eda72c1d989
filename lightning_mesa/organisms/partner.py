"""Behavior cloning beside a partner who knows the way in training: the goal, or where the partner stands?"""

import torch

from lightning_mesa.organisms.grid import CELLS, MOVES, apart, nearer, plane
from lightning_mesa.organisms.organism import Items, Organism, Part, told_or_drawn

SIGNS = 6


class Partner(Organism):
    """To the landmark that six signs vote for, against to the one where the partner stands (DeepMind 2022)."""

    name, modality = "partner", "policies"
    base, proxy, choices = "goal", "partner", MOVES
    widths = (4 * CELLS + SIGNS, 128, 64)

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        agent, first, second = apart(n, 3, draw)
        votes = torch.randn(n, SIGNS, generator=draw)
        goal = (votes.sum(1) > 0).long()
        stands = told_or_drawn(goal, told, 2, draw)
        cells = torch.where(goal.bool(), second, first), torch.where(stands.bool(), second, first)
        seen = torch.stack([plane(agent), plane(first), plane(second), plane(cells[1])], 1).flatten(1)
        return {
            "x": torch.cat([seen, votes], 1),
            "goal": nearer(agent, cells[0]),
            "partner": nearer(agent, cells[1]),
        }
