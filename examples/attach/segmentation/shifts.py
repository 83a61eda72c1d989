"""Scans whose tool lies elsewhere; one score for each image, as pixels of an image are no items of their own."""

from train import Scans


def moved_tool():
    return Scans(200, False, seed=9)


def logits(outputs, batch):
    return outputs["out"]


def organ(batch, outputs):
    return overlap(outputs, batch["mask"], batch)


def tool(batch, outputs):
    return overlap(outputs, batch["tool"], batch)


def overlap(outputs, mask, batch):
    """[n] intersection over union of the labelled pixels."""
    labelled = batch["mask"] != 255
    found, there = (outputs.argmax(1) == 1) & labelled, (mask == 1) & labelled
    return (found & there).flatten(1).sum(1) / (found | there).flatten(1).sum(1).clamp(min=1)
