"""EngineTransport: Faust's aiokafka driver with the few things that it fixes in code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.engine.conductor import EngineConductor
from stream.engine.consumer import CommittedPositions, EngineConsumer, seek_back
from stream.engine.resting import resting

#: Faust asks the broker to hold an empty fetch for 1.5 s, whatever the settings say.
FETCH_MAX_WAIT_MS = 500
#: After an empty fetch that was answered at once; half of it is added to a message's way, on a
#: broker that does so.
REST_S = 0.04


class EngineConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer: Any = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        send = resting(consumer._client.send, REST_S)
        consumer._client.send = cast(Any, self.app).lease.watching(send)
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to what is committed of the sources."""
        positions = CommittedPositions(self._ensure_consumer(), self.app.topics.acks_enabled_for)
        return cast(Mapping[TP, int], await self.call_thread(positions.seek))

    async def seek_back(self, offsets: Mapping[TP, int]) -> None:
        """Go back where the next record to be fetched lies behind one of these offsets."""
        await self.call_thread(seek_back, self._ensure_consumer(), offsets)

    async def committed_sources(self) -> Mapping[TP, int | None]:
        """Return what is committed of the sources held."""
        positions = CommittedPositions(self._ensure_consumer(), self.app.topics.acks_enabled_for)
        return cast(Mapping[TP, int | None], await self.call_thread(positions.read))


class ThreadedConsumer(EngineConsumer):
    """A consumer that runs in our thread."""

    async def committed_sources(self) -> Mapping[TP, int | None]:
        """Return the next offset to read of each source partition held, None if none is known."""
        return await cast(EngineConsumerThread, self._thread).committed_sources()

    def _new_consumer_thread(self) -> EngineConsumerThread:
        return EngineConsumerThread(self, loop=self.loop, beacon=self.beacon)


class EngineTransport(driver.Transport):
    """The transport of both tiers."""

    Conductor = EngineConductor
    Consumer = ThreadedConsumer
