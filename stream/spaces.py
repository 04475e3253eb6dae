"""Embedding spaces: vectors of two encoders mean nothing to each other, and are never mixed."""

from __future__ import annotations

from models.weights import ModelError

_HOW = "deploy/OPERATIONS.md says how an encoder is changed"


class OtherEncoder(ModelError):
    """Vectors that are kept are another encoder's; the text names both."""

    def __init__(self, what: str, expected: str, got: str) -> None:
        super().__init__(
            f"{what}: expected vectors of encoder {expected}, got {got} (setting encoder; {_HOW})"
        )


def space_of(encoder_id: str, dim: int) -> str:
    """Return the name of the space that an encoder's vectors lie in."""
    return f"{encoder_id} ({dim} dimensions)"
