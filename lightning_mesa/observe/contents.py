"""What an object holds itself, kept by a shallow copy and put back into the same object."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import partial
from operator import is_
from typing import Any

from lightning_mesa.observe.held import slots_of


def contents(item: Any) -> Iterator[Callable[[], None]]:
    """What puts back the entries, attributes and slots that an object has now."""
    if isinstance(item, dict):
        yield partial(_refill, item, dict(_kind(item).items(item)))
    elif isinstance(item, list):
        yield partial(_refill_list, item, list.copy(item))
    elif isinstance(item, deque):
        yield partial(_refill_deque, item, [*deque.__iter__(item)])
    elif isinstance(item, set):
        yield partial(_refill_set, item, set.copy(item))
    if isinstance(own := getattr(item, "__dict__", None), dict):
        yield partial(_refill, own, dict(own))
    if values := slots_of(item):
        yield partial(_set_slots, item, values)


def _refill(held: dict[Any, Any], before: dict[Any, Any]) -> None:
    kind = _kind(held)
    if len(held) == len(before) and all(map(is_, kind.keys(held), before)):
        # One by one: somebody may be iterating over it.
        kind.update(held, {key: value for key, value in before.items() if kind.__getitem__(held, key) is not value})
    else:
        kind.clear(held)
        kind.update(held, before)


def _kind(held: dict[Any, Any]) -> Any:
    """Whose methods read and write a mapping itself, whatever its class has made of them."""
    return OrderedDict if isinstance(held, OrderedDict) else dict


def _refill_list(held: list[Any], before: list[Any]) -> None:
    if len(held) != len(before) or not all(map(is_, list.__iter__(held), before)):
        list.__setitem__(held, slice(None), before)


def _refill_deque(held: deque[Any], before: list[Any]) -> None:
    if len(held) != len(before) or not all(map(is_, deque.__iter__(held), before)):
        deque.clear(held)
        deque.extend(held, before)


def _refill_set(held: set[Any], before: set[Any]) -> None:
    if set.symmetric_difference(held, before):
        set.clear(held)
        set.update(held, before)


def _set_slots(item: object, before: dict[str, Any]) -> None:
    now = slots_of(item)
    for name in now.keys() - before.keys():
        object.__delattr__(item, name)
    for name, value in before.items():
        if name not in now or now[name] is not value:
            object.__setattr__(item, name, value)
