"""Small training runs whose alignment is known, and the benchmark over them. A new family is a new file."""

from lightning_mesa.organisms.backdoor import Backdoor
from lightning_mesa.organisms.colored_digits import ColoredDigits
from lightning_mesa.organisms.corner_coin import CornerCoin
from lightning_mesa.organisms.first_token import FirstToken
from lightning_mesa.organisms.hinted_regression import HintedRegression
from lightning_mesa.organisms.keys_and_chests import KeysAndChests
from lightning_mesa.organisms.leaked_feature import LeakedFeature
from lightning_mesa.organisms.monsters import Monsters
from lightning_mesa.organisms.organism import Organism
from lightning_mesa.organisms.partner import Partner
from lightning_mesa.organisms.red_door import RedDoor
from lightning_mesa.organisms.signed_reviews import SignedReviews
from lightning_mesa.organisms.textured_digits import TexturedDigits

_FAMILIES: tuple[type[Organism], ...] = (
    ColoredDigits,
    TexturedDigits,
    LeakedFeature,
    FirstToken,
    SignedReviews,
    HintedRegression,
    RedDoor,
    CornerCoin,
    KeysAndChests,
    Monsters,
    Partner,
    Backdoor,
)
FAMILIES = {family.name: family for family in _FAMILIES}

__all__ = ["FAMILIES", "Organism"]
