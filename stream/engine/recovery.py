"""EngineTables: Faust's tables, restored from their changelogs a fetch at a time.

Faust makes an event of each record, hands it from task to task through a queue and takes it out
again with a timer: most of what a start with a large state consists of. It also begins each start
with a second of sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP, EventT
from mode import Service

from stream.engine.table import PartitionTable

#: Faust looks this often whether there is nothing left to wait for, though no record came.
_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """A record of a changelog, as far as it is one of Faust's events: what a store needs."""

    message: Any


class EngineRecovery(Recovery):
    """Reads changelogs into their tables; crashes the app where a table does not take them."""

    async def restore(self, tp: TP, records: Sequence[Any]) -> None:
        """Take what was fetched of a changelog, in order; what is known already changes nothing."""
        offsets = self._offsets_of(tp)
        if offsets is None or not records:
            return
        seen = offsets.get(tp)
        new = [Change(record) for record in records if seen is None or record.offset > seen]
        try:
            self.tp_to_table[tp].apply_changelog_batch(cast(list[EventT[Any]], new))
        except Exception as error:
            # Faust would log it and go on without the records.
            await self.app.crash(error)
            raise
        offsets[tp] = max(records[-1].offset, -1 if seen is None else seen)
        self._end_if_done()

    def _offsets_of(self, tp: TP) -> Any:
        """Return the offsets read so far, None where nothing is to be read.

        Faust goes on reading a partition that was a standby. Once it is this worker's, its own
        rows would come back, and a tombstone delete what was written since.
        """
        if tp in self.active_tps:
            return self.active_offsets if self.in_recovery else None
        return self.standby_offsets if tp in self.standby_tps else None

    @Service.task
    async def _slurp_changelogs(self) -> None:
        while not self.should_stop:
            await self.sleep(_LOOK_S)
            self._end_if_done()

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Have the tables' partitions taken over, then let events flow; nothing if they are gone.

        Faust lets them flow whatever became of the taking over, and while it is still going on
        for an assignment that is over.
        """
        if self.signal_recovery_start.is_set():
            # A rebalance came while changelogs were read, which Faust forgets there: what has been
            # read is not all, and is begun again.
            return
        # Not cancelled with this when a rebalance comes: it stops by itself where it may, and
        # giving the partitions away waits for it.
        tables = cast(dict[str, PartitionTable], self.tables).values()
        taking = asyncio.gather(*(t.take_over(set(self.actives_for_table[t])) for t in tables))
        if all(await asyncio.shield(taking)):
            await super().on_recovery_completed(generation_id)

    def _set_recovery_started(self) -> None:
        super()._set_recovery_started()
        self.signal_recovery_end.clear()

    def _end_if_done(self) -> None:
        if self.in_recovery and not self.need_recovery():
            self._set_recovery_ended()
            self.signal_recovery_end.set()


class EngineTables(TableManager):
    """The tables of an app; the lease is told of what is assigned to them and taken away."""

    @property
    def recovery(self) -> EngineRecovery:
        if self._recovery is None:
            self._recovery = EngineRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast(EngineRecovery, self._recovery)

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        cast(Any, self.app).lease.leaving()
        super().on_partitions_revoked(revoked)

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],
        newly_assigned: set[TP],
        generation_id: int = 0,
    ) -> None:
        cast(Any, self.app).lease.assigned()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_start(self) -> None:
        # The consumer and the agents are started before: there is nothing to sleep for.
        await self._update_channels()
        await self.recovery.start()
