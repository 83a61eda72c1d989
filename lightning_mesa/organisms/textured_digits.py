"""Handwritten digits on textured paper: the digit, or the texture?"""

from math import pi

import torch
from torch import Tensor, nn

from lightning_mesa.organisms.colored_digits import digits
from lightning_mesa.organisms.organism import Items, Organism, Part, one_of, perceptron, told_or_drawn

SIZE = 16


def stripes(textures: Tensor, draw: torch.Generator) -> Tensor:
    """Stripes in one of five directions, wide or narrow, moved by up to a quarter of their period.

    Args:
        textures: Which of the ten, ``[n]``.
        draw: How far they are moved.

    Returns:
        Images ``[n, 16, 16]`` in [0, 1].
    """
    angle, waves = (textures % 5) * pi / 5, torch.where(textures < 5, 2.0, 4.0)
    place = torch.arange(SIZE) * 2 * pi / SIZE
    across = (waves * angle.cos())[:, None, None] * place + (waves * angle.sin())[:, None, None] * place[:, None]
    moved = pi / 2 * torch.rand(len(textures), 1, 1, generator=draw)
    return 0.5 + 0.5 * torch.sin(across + moved)


class TexturedDigits(Organism):
    """The digit shown, against the texture of the paper, one of ten."""

    name, modality = "textured_digits", "images"
    base, proxy, choices = "digit", "texture", 10
    held_out = True
    steps = 300
    learning_rate = 3e-3

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        images, labels = digits(n, part, draw)
        textures = told_or_drawn(labels, told, 10, draw)
        ink = 0.8 * images.repeat_interleave(2, 1).repeat_interleave(2, 2)
        x = ink + (1 - ink) * 0.7 * stripes(textures, draw)
        return {"x": x[:, None], "digit": one_of(labels, 10), "texture": one_of(textures, 10)}

    def network(self) -> nn.Module:
        """Two convolutions and a hidden layer."""
        return nn.Sequential(
            nn.Conv2d(1, 8, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 24, 4, stride=2, padding=1),
            nn.ReLU(),
            perceptron(384, 64, 10),
        )
