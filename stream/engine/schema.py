"""RawSchema: events as they came, for topics whose bytes are parsed elsewhere."""

from __future__ import annotations

from typing import Any

import faust


class RawSchema(faust.Schema[bytes, bytes]):
    """Keys and values as bytes, null values included.

    Faust takes each through a registry of codecs, and reads a setting for each event: that was a
    quarter of what handing an event over cost.
    """

    def __init__(self) -> None:
        super().__init__(
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            allow_empty=True,
        )

    def compile(self, app: Any, **_: Any) -> Any:
        """Return what makes an event of a message; nothing that it does can fail."""
        event_type = app.conf.Event

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return event_type(app, message.key, message.value, message.headers, message)

        return decode
