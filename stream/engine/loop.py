"""KafkaLoop: uvloop, as the Kafka client expects an event loop to be.

Where a connection has ended and its reader does not know yet, a write raises RuntimeError on uvloop
and nothing on asyncio's own loop. aiokafka expects OSError at most (its issue 1038): the task that
looks for the coordinator, or renews the metadata, dies of it in silence, and the worker is a member
of nothing for ever. And a TLS connection is given half a minute to say goodbye, by which closing
each client of a worker would wait for a peer that is gone.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

#: To close a TLS connection; a peer that is there answers at once.
TLS_GOODBYE_S = 2.0


class KafkaLoop(uvloop.Loop):
    """See above."""

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        """Connect as uvloop does; a write on what has ended raises ConnectionResetError."""
        if options.get("ssl"):
            options.setdefault("ssl_shutdown_timeout", TLS_GOODBYE_S)
        transport, protocol = await super().create_connection(*args, **options)
        return _Transport(transport), protocol


class _Transport:
    """A transport of uvloop whose writes fail as those of a socket do."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from error


class KafkaLoopPolicy(asyncio.DefaultEventLoopPolicy):
    """Every loop of the process is a KafkaLoop, that of Faust's consumer thread too."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return KafkaLoop()
