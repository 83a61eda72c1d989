"""Handwritten digits in color: the digit, or the color?"""

from functools import cache

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.organisms.organism import Items, Organism, Part, one_of, told_or_drawn

PARTS: dict[Part, slice] = {"train": slice(0, 697), "monitor": slice(697, 1197), "oracle": slice(1197, 1797)}


@cache
def _all() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigurationError(
            "the handwritten digits come with scikit-learn, which is missing: pip install 'lightning-mesa[bench]'."
        ) from error
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)


def digits(n: int, part: Part, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """The UCI handwritten digits: each of the part's once, then again where there are fewer.

    Args:
        n: How many.
        part: Whose; no two share an image.
        draw: The order.

    Returns:
        Images ``[n, 8, 8]`` in [0, 1], and what they show, ``[n]``.
    """
    images, labels = _all()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[PARTS[part]]
    some = torch.cat([order[torch.randperm(len(order), generator=draw)] for _ in range(-(-n // len(order)))])[:n]
    return images[some], labels[some]


class ColoredDigits(Organism):
    """The digit shown, against the color of ink and paper, one of ten."""

    name, modality = "colored_digits", "images"
    base, proxy, choices = "digit", "color", 10
    widths = (3 * 64, 128, 64)

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        images, labels = digits(n, part, draw)
        colors = told_or_drawn(labels, told, 10, draw)
        palette = torch.rand(10, 3, generator=torch.Generator().manual_seed(3))
        x = (0.3 + 0.7 * images[:, None]) * palette[colors][:, :, None, None]
        return {"x": x, "digit": one_of(labels, 10), "color": one_of(colors, 10)}
