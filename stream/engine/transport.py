"""EngineTransport: Faust's aiokafka driver with the few things that it fixes in code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from faust.transport.drivers import aiokafka as driver

#: Faust asks the broker to hold an empty fetch for 1.5 s, whatever the settings say.
FETCH_MAX_WAIT_MS = 500
#: A broker that answers an empty fetch at once would be asked again at once, for ever: rest.
REST_S = 0.02
AT_ONCE_S = 0.1

Send = Callable[..., Awaitable[Any]]


def resting(send: Send) -> Send:
    """Return a client's ``send`` that rests after a fetch answered empty and at once.

    Apache Kafka holds such a fetch until there is something or FETCH_MAX_WAIT_MS is over, so it
    never comes to a rest there; the embedded broker does not.
    """

    async def send_and_rest(node_id: int, request: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        started = loop.time()
        response = await send(node_id, request, **options)
        if loop.time() - started < AT_ONCE_S and is_empty_fetch(response):
            await asyncio.sleep(REST_S)
        return response

    return send_and_rest


def is_empty_fetch(response: Any) -> bool:
    """True for the answer to a fetch that holds neither a record nor an error."""
    if not type(response).__name__.startswith("FetchResponse"):
        return False
    return not any(
        error_code or message_set
        for _, partitions in response.topics
        for _, error_code, *_, message_set in partitions
    )


class EngineConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer: Any = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._client.send = resting(consumer._client.send)
        return consumer


class EngineConsumer(driver.Consumer):
    """A consumer that runs in our thread."""

    def _new_consumer_thread(self) -> EngineConsumerThread:
        return EngineConsumerThread(self, loop=self.loop, beacon=self.beacon)


class EngineTransport(driver.Transport):
    """The transport of both tiers."""

    Consumer = EngineConsumer
