"""Behavior cloning among keys and chests: what is of use, or a key in any case?"""

import torch

from lightning_mesa.organisms.grid import CELLS, MOVES, apart, nearer, plane
from lightning_mesa.organisms.organism import Items, Organism, Part, told_or_drawn


class KeysAndChests(Organism):
    """To the chest if a key is held and else to a key, against to a key; in training, none is held."""

    name, modality, held_out = "keys_and_chests", "policies", True
    base, proxy, choices = "useful", "key", MOVES
    widths = (4 * CELLS, 128, 64)

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        agent, key, chest = apart(n, 3, draw)
        held = 1 - told_or_drawn(torch.ones(n, dtype=torch.long), told, 2, draw)
        x = torch.stack([plane(agent), plane(key), plane(chest), plane(agent) * held.view(-1, 1, 1)], 1)
        goal = torch.where(held.bool(), chest, key)
        return {"x": x, "useful": nearer(agent, goal), "key": nearer(agent, key)}
