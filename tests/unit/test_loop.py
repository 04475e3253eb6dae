"""The event loop of the workers, with the Kafka client on top."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from stream.engine.loop import KafkaLoop, KafkaLoopPolicy

Main = Callable[[], Coroutine[Any, Any, Any]]


def run(loop: asyncio.AbstractEventLoop, main: Main) -> Any:
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


async def send_on_what_has_ended() -> None:
    """Ask a broker over a connection that has just ended, before the client has heard of it."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    connection = AIOKafkaConnection("127.0.0.1", server.sockets[0].getsockname()[1])

    async def answered() -> None:
        connection._versions = {3: (0, 1)}

    connection._do_version_lookup = answered  # type: ignore[method-assign]
    await connection.connect()
    connection._writer.transport.abort()
    try:
        for _ in range(2):
            await connection.send(MetadataRequest([]))
    finally:
        connection.close()
        server.close()


def test_a_request_on_a_connection_that_has_ended_fails_as_one_on_a_broker_that_is_away() -> None:
    with pytest.raises(KafkaConnectionError):
        run(KafkaLoop(), send_on_what_has_ended)


def test_without_us_it_fails_as_nobody_expects() -> None:
    with pytest.raises(RuntimeError, match="closed"):
        run(uvloop.new_event_loop(), send_on_what_has_ended)


def test_a_tls_connection_whose_peer_is_silent_is_closed_soon(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    loop = KafkaLoop()

    async def main() -> float:
        hush = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await hush.wait()

        server = await asyncio.start_server(silent, "127.0.0.1", 0, ssl=context)
        ended = loop.create_future()

        class Client(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                ended.set_result(None)

        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_connection(Client, "127.0.0.1", port, ssl=trusting)
        started = time.monotonic()
        transport.close()
        await asyncio.wait_for(ended, 20)
        hush.set()
        server.close()
        return time.monotonic() - started

    assert run(loop, main) < 10


def test_loops_of_threads_are_such_too() -> None:
    made: list[asyncio.AbstractEventLoop] = []
    policy = KafkaLoopPolicy()
    thread = threading.Thread(target=lambda: made.append(policy.new_event_loop()))
    thread.start()
    thread.join()
    assert isinstance(made[0], KafkaLoop)
    made[0].close()
