"""Networks in mazes of which it is known whether they search, and for what. A new family is a new file."""

from lightning_mesa.organisms.search.by_heart import ByHeart
from lightning_mesa.organisms.search.cheese_seeker import CheeseSeeker
from lightning_mesa.organisms.search.planner import Planner
from lightning_mesa.organisms.search.searcher import Searcher
from lightning_mesa.organisms.search.straight import Straight
from lightning_mesa.organisms.search.untrained import Untrained
from lightning_mesa.organisms.search.value_iteration import ValueIteration

_FAMILIES: tuple[type[Searcher], ...] = (ValueIteration, Planner, CheeseSeeker, Straight, ByHeart, Untrained)
SEARCHERS = {family.name: family for family in _FAMILIES}

__all__ = ["SEARCHERS", "Searcher"]
