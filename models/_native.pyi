from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from models.evidence import Evidence
from models.profile import Profile, RecommendedItem

def find_rows(row_of: dict[str, int], item_ids: Sequence[str], unknown: int) -> NDArray[Any]: ...
def keep_allowed(
    scores: NDArray[Any], rows: NDArray[Any], allowed: NDArray[Any], k: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...
def may_hold(numbers: NDArray[Any], raw: bytes, width: int) -> NDArray[Any]: ...
def neighbours(
    *columns: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...
def add_up(*columns: NDArray[Any]) -> None: ...
def gather(
    profiles: Sequence[Profile],
    item_rows: NDArray[Any],
    step_decay: float,
    negligible: float,
    make: Callable[..., Evidence],
) -> list[Evidence]: ...
def places_of(rows: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]: ...
def tell(
    item_ids: Sequence[str],
    scores: NDArray[Any],
    columns: NDArray[Any],
    shares: NDArray[Any],
    starts: Sequence[int],
    evidences: Sequence[Evidence],
    least_share: float,
    names: tuple[Any, ...],
) -> list[list[RecommendedItem]]: ...
def merge(*columns: NDArray[Any]) -> tuple[NDArray[Any], ...]: ...
def choose(*columns: NDArray[Any] | float) -> tuple[NDArray[Any], ...]: ...
def widen(halves: NDArray[Any], wide: NDArray[Any]) -> None: ...
