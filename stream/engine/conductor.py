"""EngineConductor: a message goes into its stream at once where nothing has to be waited for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from faust.transport.conductor import Conductor
from faust.types import TP

Pressure = tuple[Callable[[], None], Callable[[], None]]


class EngineConductor(Conductor):
    """Faust's conductor, with a short way for the usual case.

    Faust hands each message over by four coroutines: it takes a lock, looks whether its own
    producer is full, which we do not use, and has a registry of codecs decode what we leave as it
    is. That was half of what handing an event over cost.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Looked up once: Faust finds each anew for every message.
        self._event_type: Any = self.app.conf.Event
        self._flow = self.app.flow_control
        self._pressure: dict[TP, Pressure] = {}

    def take(self, message: Any) -> bool:
        """Put a message into its stream as it is; False when that is left to Faust's own way.

        It is when the flow is suspended, when the stream's buffer is full, and when a partition
        has not exactly one stream.
        """
        tp = message.tp
        channels = self._tp_index.get(tp)
        if not channels or len(channels) > 1 or not self._flow.is_active():
            return False
        (channel,) = channels
        queue: Any = channel.queue
        if queue.full():
            return False
        message.incref()
        event = self._event_type(self.app, message.key, message.value, None, message)
        high, drop = self._pressure.get(tp) or self._pressure_of(tp)
        queue.put_nowait_enhanced(event, on_pressure_high=high, on_pressure_drop=drop)
        return True

    def _pressure_of(self, tp: TP) -> Pressure:
        """Return what pauses the fetching of a partition, and what resumes it; always the same."""
        # Messages name their partition in aiokafka's type: equal, but Faust's consumer asks for its
        # own, and crashes on the other.
        partition = TP(tp.topic, tp.partition)

        def high() -> None:
            self.app.sensors.on_topic_buffer_full(partition)
            self.app.consumer.on_buffer_full(partition)

        drop = partial(self.app.consumer.on_buffer_drop, partition)
        pressure = self._pressure[partition] = high, drop
        return pressure
