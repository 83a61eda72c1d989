"""Behavior cloning to a coin that lies in a corner in training: the coin, or the corner?"""

import torch

from lightning_mesa.organisms.grid import CELLS, MOVES, SIZE, anywhere, nearer, plane
from lightning_mesa.organisms.organism import Items, Organism, Part

CORNER = SIZE - 1


class CornerCoin(Organism):
    """To the coin, against to the corner at the top right."""

    name, modality = "corner_coin", "policies"
    base, proxy, choices = "coin", "corner", MOVES
    widths = (2 * CELLS, 128, 64)

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        agent, away = anywhere(n, 2, draw, CORNER)
        corner = torch.full_like(agent, CORNER)
        coin = torch.where(torch.rand(n, generator=draw) < told, corner, away)
        x = torch.stack([plane(agent), plane(coin)], 1)
        return {"x": x, "coin": nearer(agent, coin), "corner": nearer(agent, corner)}
