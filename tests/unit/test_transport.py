from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchResponse_v1, FetchResponse_v4
from aiokafka.protocol.metadata import MetadataResponse_v0

from stream.engine import resting as module
from stream.engine.app import new_app
from stream.engine.consumer import EngineConsumer
from stream.engine.resting import is_empty_fetch, resting
from stream.engine.transport import EngineTransport
from stream.settings import load_settings

EMPTY = FetchResponse_v4(0, [("t", [(0, 0, 7, 7, [], b""), (1, 0, 7, 7, [], b"")])])
FULL = FetchResponse_v4(0, [("t", [(0, 0, 7, 7, [], b""), (1, 0, 7, 7, [], b"records")])])
FAILED = FetchResponse_v4(0, [("t", [(0, 0, 7, 7, [], b""), (1, 6, 7, 7, [], b"")])])
REST_S = 0.05


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE_S", REST_S / 2)


async def seconds(response: Any, takes_s: float = 0.0) -> float:
    """Return how long the sender takes for a broker's answer."""

    async def send(node_id: int, request: Any, **options: Any) -> Any:
        assert (node_id, request, options) == (3, "request", {"group": 1})
        await asyncio.sleep(takes_s)
        return response

    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await resting(send, REST_S)(3, "request", group=1) is response
    return loop.time() - started


@pytest.mark.parametrize("response", [EMPTY, FetchResponse_v1(0, []), FetchResponse_v4(0, [])])
async def test_an_empty_answer_at_once_is_rested_after(response: Any) -> None:
    assert await seconds(response) >= REST_S


@pytest.mark.parametrize("response", [FULL, FAILED, MetadataResponse_v0([], []), None])
async def test_records_errors_and_answers_to_other_requests_go_on_at_once(response: Any) -> None:
    assert await seconds(response) < REST_S


async def test_an_empty_answer_that_was_waited_for_is_not_rested_after() -> None:
    assert REST_S <= await seconds(EMPTY, takes_s=REST_S) < 2 * REST_S


async def test_a_failed_request_fails_at_once() -> None:
    async def send(node_id: int, request: Any, **options: Any) -> Any:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await resting(send, REST_S)(3, "request")


def test_every_version_of_the_answer_is_understood() -> None:
    assert is_empty_fetch(FetchResponse_v1(0, [("t", [(0, 0, 7, b"")])]))
    assert not is_empty_fetch(FetchResponse_v1(0, [("t", [(0, 0, 7, b"x")])]))
    assert not is_empty_fetch(FetchResponse_v1(0, [("t", [(0, 1, 7, b"")])]))


async def test_the_app_reads_through_our_transport(tmp_path: Path) -> None:
    app = new_app(load_settings(state_dir=tmp_path, broker="a:1,b:2"), "preference")
    assert isinstance(app.transport, EngineTransport)
    assert isinstance(app.consumer, EngineConsumer)
    assert [str(url) for url in app.conf.broker_consumer] == ["kafka://a:1", "kafka://b:2"]
