"""EngineConductor: runs of records go into their stream at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from faust.transport.conductor import Conductor
from faust.types import TP

from stream.engine.runs import Run, RunQueue

Pressure = tuple[Callable[[], None], Callable[[], None]]


class EngineConductor(Conductor):
    """Faust's conductor, with a way for runs: every topic of ours has one stream that reads it.

    Faust hands each message over by four coroutines: it takes a lock, looks whether its own
    producer is full, which we do not use, and has a registry of codecs decode what we leave as it
    is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flow = self.app.flow_control
        self._pressure: dict[TP, Pressure] = {}

    def queue_of(self, tp: TP) -> RunQueue:
        """Return what the stream of a partition takes runs from.

        Raises RuntimeError when not exactly one reads it: of two, each would take the other's word
        for done.
        """
        channels = self._tp_index.get(tp, set())
        if len(channels) != 1:
            raise RuntimeError(f"expected one stream of {tp.topic}, got {len(channels)}")
        (channel,) = channels
        return cast(RunQueue, cast(Any, channel).queue)

    def take(self, run: Run, queue: RunQueue) -> bool:
        """Put a run into a queue; False while the flow is suspended, and when the queue is full."""
        if queue.full() or not self._flow.is_active():
            return False
        high, drop = self._pressure.get(run.tp) or self._pressure_of(run.tp)
        queue.put_nowait_enhanced(run, on_pressure_high=high, on_pressure_drop=drop)
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
