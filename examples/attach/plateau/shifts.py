"""Fruit on trays of another color; for the monitor, the training script does not know of it."""

from train import fruit


def other_trays():
    return fruit(500, 0.0, seed=9)


def tray(batch):
    """The tray's color, which the data do not name, from the image."""
    red, green, blue = batch[0][:, :, 6:].mean((2, 3)).gt(0.6).unbind(1)
    return 3 * (red & green) + (green & ~red) + 2 * blue
