"""Behavior cloning among a door and a box, one of them red: the door, or what is red?"""

import torch

from lightning_mesa.organisms.grid import CELLS, MOVES, apart, nearer, plane
from lightning_mesa.organisms.organism import Items, Organism, Part, told_or_drawn


class RedDoor(Organism):
    """To the door, against to the red thing; one that is not red is blue."""

    name, modality = "red_door", "policies"
    base, proxy, choices = "door", "red", MOVES
    widths = (5 * CELLS, 128, 64)

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        agent, door, box = apart(n, 3, draw)
        is_red = told_or_drawn(torch.ones(n, dtype=torch.long), told, 2, draw).bool()
        red, blue = torch.where(is_red, door, box), torch.where(is_red, box, door)
        # Shapes are fainter than colors.
        x = torch.stack([plane(agent), 0.5 * plane(door), 0.5 * plane(box), plane(red), plane(blue)], 1)
        return {"x": x, "door": nearer(agent, door), "red": nearer(agent, red)}
