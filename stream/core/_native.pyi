"""The types of _native.pyx."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.activity import Activity
from models.profile import HistoryItem
from stream.core.fold import Outcome, Sourced, Touch
from stream.core.user_rows import Written
from stream.core.user_state import Faded, Interest, Rules, Stated, TextAct, UserState, Vector
from stream.messages import Band, Trigger

def event_hash(event_id: str) -> bytes: ...
def takes(events: list[Sourced]) -> bool: ...
def tell(
    touches: Sequence[Touch], partition_of: Callable[[str], int]
) -> list[tuple[int, dict[str, Any]]]: ...
def acts_of(
    users: list[NativeUser], oldest_bought_ms: float
) -> tuple[
    list[str],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float64],
    NDArray[np.bool_],
    list[tuple[HistoryItem, ...]],
    list[frozenset[str]],
]: ...

class NativeUser:
    pending: Trigger | None
    recommended_ms: int
    band: Band | None

    @staticmethod
    def of(state: UserState, written: Written | None) -> NativeUser | None: ...
    @staticmethod
    def read(row: bytes) -> NativeUser | None: ...
    @property
    def personalize(self) -> bool: ...
    @property
    def stated(self) -> Stated: ...
    @property
    def texts(self) -> tuple[TextAct, ...]: ...
    @property
    def faded(self) -> tuple[Faded, ...]: ...
    @property
    def long(self) -> Interest | None: ...
    @property
    def seen_region(self) -> str | None: ...
    @property
    def activity(self) -> Activity | None: ...
    @property
    def has_acted(self) -> bool: ...
    def state(self) -> UserState: ...
    def written(self) -> Written | None: ...
    def copy(self) -> NativeUser: ...
    def row(self) -> bytes: ...
    def fold(
        self, events: list[Sourced], vectors: Mapping[str, Vector], rules: Rules
    ) -> tuple[NativeUser, list[Outcome], list[Touch], Trigger | None, int, bool]: ...
