"""TextEncoder: texts -> unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

#: Some models put another prefix before what is searched for than before what is found.
Side = Literal["query", "passage"]
#: What is done for want of a device: a batch is halved; one text goes to the CPU; all go there.
Fallback = Literal["smaller_batch", "cpu_once", "cpu"]


class TextEncoder(Protocol):
    """What turns texts into vectors; all vectors of one ``encoder_id`` share one space."""

    @property
    def encoder_id(self) -> str:
        """Name and weights' digest: equal ids mean vectors that may be compared."""

    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str], side: Side = "passage") -> NDArray[np.float32]:
        """Return one unit vector per text, shape (len(texts), dim), in the order given.

        Raises EncoderUnavailable when a later try may succeed.
        """


class EncoderUnavailable(RuntimeError):
    """Not now: memory or the device is gone. The same texts may succeed when tried again."""
