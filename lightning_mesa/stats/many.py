"""Tensors ``[n, A]`` of very many choices, and masks of these of which few are set.

PyTorch's own ``argmax``, ``any`` and ``sum`` of bool take 4 to 60 times as long on a CPU, of 50,000 choices more than
the last layer of the model that is looked at. Blocks, bytes and words are what it is fast at.
"""

import torch
from torch import Tensor

_BLOCK = 256
_WORD = 8
_MOST = 255


def largest(outputs: Tensor) -> Tensor:
    """``[n]`` int64: the choice with the largest output, the first of several; as ``argmax(1)`` of ``[n, A]``."""
    whole = outputs.shape[1] // _BLOCK * _BLOCK
    if whole <= _BLOCK:
        return outputs.argmax(1)
    blocks = torch.unflatten(outputs[:, :whole], 1, (-1, _BLOCK)).amax(2)
    if whole < outputs.shape[1]:
        blocks = torch.cat([blocks, outputs[:, whole:].amax(1, keepdim=True)], 1)
    first = blocks.argmax(1, keepdim=True) * _BLOCK
    inside = (first + torch.arange(_BLOCK, device=outputs.device)).clamp(max=outputs.shape[1] - 1)
    return (first + outputs.gather(1, inside).argmax(1, keepdim=True))[:, 0]


def some(mask: Tensor) -> Tensor:
    """``[n]`` bool: whether a choice of the item is set."""
    return mask.view(torch.uint8).amax(1) > 0 if mask.shape[1] else mask.any(1)


def counts(mask: Tensor) -> Tensor:
    """``[A]`` int64: on how many items each choice is set."""
    parts = [part.view(torch.uint8).sum(0, dtype=torch.uint8) for part in torch.split(mask, _MOST)]
    return torch.stack(parts).sum(0)


def places(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Item and choice, ``[m]`` each, of all that is set, in order."""
    flat = mask.flatten()
    whole = flat.numel() // _WORD * _WORD
    words = flat[:whole].view(torch.int64).nonzero()[:, 0]
    found = flat[:whole].view(-1, _WORD)[words].nonzero()
    at = torch.cat([words[found[:, 0]] * _WORD + found[:, 1], flat[whole:].nonzero()[:, 0] + whole])
    return at // max(1, mask.shape[1]), at % max(1, mask.shape[1])
