"""Run: records of one partition on their way into a stream, handed over and acknowledged together.

Faust makes a message, an event and an entry in a set of what is in progress for each record, and
acknowledges each by itself under a lock. A run does all of that once for some hundred.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from faust.types import TP
from mode.utils.queues import ThrowableQueue

#: Records of a run at most: as many are handed over between two breaths of the event loop.
RUN_RECORDS = 250


class Run:
    """Records of a partition that follow each other, as aiokafka fetched them, at least one.

    A stream takes them from the front, a part for each of its batches, and is done with the parts
    in that order.
    """

    __slots__ = ("_n_committed", "_n_done", "_n_taken", "generation_id", "records", "tp")

    def __init__(self, tp: TP, records: Sequence[Any], generation_id: int) -> None:
        """``generation_id`` is that of the assignment in which they were fetched."""
        self.tp = tp
        self.records = records
        self.generation_id = generation_id
        self._n_taken = self._n_done = self._n_committed = 0

    def __len__(self) -> int:
        """Return how many records no stream has taken yet."""
        return len(self.records) - self._n_taken

    def take(self, n: int) -> Part:
        """Take up to n records from the front."""
        part = Part(self, self.records[self._n_taken : self._n_taken + n])
        self._n_taken += len(part.records)
        return part

    def done(self, n: int) -> None:
        """Note that the n records behind those that were done before are done."""
        self._n_done += n

    @property
    def is_done(self) -> bool:
        return self._n_done == len(self.records)

    def committable(self) -> int | None:
        """Return the offset behind those that are done; None when it was returned before."""
        if self._n_done == self._n_committed:
            return None
        self._n_committed = self._n_done
        return int(self.records[self._n_done - 1].offset) + 1


class Part:
    """What one batch has of a run. Faust's consumer waits for it before it lets go of a partition,
    and asks of it what it asks of a message."""

    __slots__ = ("__weakref__", "acked", "records", "run")

    #: For Faust's log: how many streams are at it.
    refcount = 1

    def __init__(self, run: Run, records: Sequence[Any]) -> None:
        self.run = run
        self.records = records
        self.acked = False


class RunQueue(ThrowableQueue[Run]):
    """A stream's buffer: it holds runs, and is as full as they have records."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._n_records = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    def qsize(self) -> int:
        """Return how many records wait."""
        return self._n_records

    async def room(self) -> None:
        """Wait until the queue is not full."""
        await self._has_room.wait()

    def put_back(self, run: Run) -> None:
        """Put what is left of a run before all others: it is taken next, or cleared with them."""
        self._queue.appendleft(run)  # type: ignore[attr-defined]
        self._count(len(run))

    def clear(self) -> None:
        super().clear()
        self._count(-self._n_records)

    def _put(self, run: Run) -> None:
        super()._put(run)
        self._count(len(run))

    def _get(self) -> Run:
        run: Run = super()._get()
        self._count(-len(run))
        return run

    def _count(self, n: int) -> None:
        self._n_records += n
        if self.full():
            self._has_room.clear()
        else:
            self._has_room.set()
