"""Items split as if at random, the same at every look and on every process."""

from torch import Tensor


def mixed(numbers: Tensor) -> Tensor:
    """``[n]`` int64 of which every bit depends on all of a number's: splitmix64.

    As if drawn at random, as the order of a dataset may alternate (Steele, Lea and Flood 2014, "Fast splittable
    pseudorandom number generators").

    Args:
        numbers: ``[n]`` int64.
    """
    x = (numbers + 1) * -0x61C8864680B583EB  # the constants as signed numbers; products wrap
    x = (x ^ (x >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ (x >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ (x >> 31 & 0x1FFFFFFFF)


def one_half(items: Tensor) -> Tensor:
    """``[n]`` bool: which of the items belong to one half of all.

    Args:
        items: ``[n]`` int64 numbers of the items.
    """
    return mixed(items) & 1 == 1


def folds(items: Tensor, number: int) -> Tensor:
    """``[n]`` int64 below ``number``: the fold of each item.

    Args:
        items: ``[n]`` int64 numbers of the items; those with the same one are in one fold.
        number: Number of folds.
    """
    return mixed(items) % number
