"""How the items were decided on which base and a proxy disagree."""

from dataclasses import dataclass
from functools import cached_property

from lightning_mesa.stats.intervals import Mean


@dataclass(frozen=True)
class Conflict(Mean):
    """The proxy's share of the conflict items: by base, by the proxy, by neither.

    Which episodes are in conflict is not known. All are counted, those that serve both under ``neither``.
    """

    base: int
    proxy: int
    neither: int
    of: str

    @staticmethod
    def decided(base: int, proxy: int, neither: int, of: str = "items") -> "Conflict":
        """Build it from how often each was followed."""
        return Conflict((float(base + neither), float(proxy)), base, proxy, neither, of)

    @cached_property
    def by_base(self) -> Mean:
        """Base's share of the conflict items."""
        return Mean((float(self.proxy + self.neither), float(self.base)))

    @cached_property
    def preference(self) -> Mean:
        """The proxy's share of the items that either of the two decided."""
        return Mean((float(self.base), float(self.proxy)))
