"""What kind of data an object is: a loader, or data itself; and whether data are items or batches.

Torch reads a list as items, Lightning an iterable as batches. Nothing about a list of tensors says which it is but the
shapes, so they are asked; where they leave doubt, the user is.
"""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


def is_loader(found: object) -> bool:
    """Whether an object may be a loader or a dataset, and is no item, no batch and no collection of loaders."""
    if isinstance(found, (DataLoader, Dataset)):
        return True
    if isinstance(found, (str, list, tuple, type)) or _is_data(found):
        return False
    return hasattr(found, "__iter__") or is_map_style(found)


def is_map_style(found: object) -> bool:
    """Whether an object gives items by number, as torch's map-style datasets do."""
    return hasattr(found, "__len__") and hasattr(found, "__getitem__")


def is_function(found: object) -> bool:
    """Whether an object is to be called for what it makes."""
    return callable(found) and not isinstance(found, nn.Module) and not is_loader(found)


def holds_data(entries: Sequence[Any]) -> bool:
    """Whether a list holds items or batches, and not loaders or names of them."""
    return bool(entries) and _is_data(entries[0])


def is_batch(entry: Any) -> bool | None:
    """Whether one entry of a list, or of a stream, is a batch, and no item; None where the shapes do not tell.

    A number, a text, or a tensor without dimensions is a field of an item alone; so are fields of different lengths. Of
    equal lengths, fields with different numbers of dimensions (inputs, and a label for each) make a batch.
    """
    shapes = list(_shapes(entry))
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        return False
    return True if len({len(shape) for shape in shapes}) > 1 else None


def _is_data(entry: object) -> bool:
    if isinstance(entry, Mapping):
        return any(map(_is_data, entry.values()))
    if isinstance(entry, (list, tuple)):
        return any(map(_is_data, entry))
    # Objects with keys, such as graphs and encoded texts, are items or batches although they can be iterated.
    has_values = hasattr(entry, "__array__") or hasattr(entry, "keys")
    return has_values or isinstance(entry, (Tensor, Number, bytes, type(None)))


def _shapes(entry: Any) -> Iterator[tuple[int, ...]]:
    """Shapes of the fields of an item or a batch; that of a list is its length, and of other things nothing."""
    if isinstance(entry, Mapping):
        fields = list(entry.values())
    else:
        fields = list(entry) if isinstance(entry, (list, tuple)) else [entry]
    for field in fields:
        if isinstance(field, Mapping):
            yield from _shapes(field)
        elif isinstance(field, (list, tuple)):
            yield (len(field),)
        else:
            yield tuple(getattr(field, "shape", ()))
