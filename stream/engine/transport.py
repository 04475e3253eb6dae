"""EngineTransport: Faust's aiokafka driver with the few settings that it fixes in code."""

from __future__ import annotations

from typing import Any

from faust.transport.drivers import aiokafka as driver

#: Faust asks the broker to hold an empty fetch for 1.5 s, whatever the settings say.
FETCH_MAX_WAIT_MS = 500


class EngineConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer: Any = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer


class EngineConsumer(driver.Consumer):
    """A consumer that runs in our thread."""

    def _new_consumer_thread(self) -> EngineConsumerThread:
        return EngineConsumerThread(self, loop=self.loop, beacon=self.beacon)


class EngineTransport(driver.Transport):
    """The transport of both tiers."""

    Consumer = EngineConsumer
