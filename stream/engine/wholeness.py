"""Refuses state of which a part is gone: taken for all there is, it would be lost in silence.

Two signs tell. A changelog that begins behind what the local store holds was cut off: compaction
leaves its beginning where it is, deletion does not. And offsets are committed only once the ledger
that covers them has arrived, so a ledger that covers less was lost after the fact.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from faust.types import TP

from stream.engine.table import PartitionTable
from stream.settings import Settings
from stream.topic_names import short_name

log = logging.getLogger(__name__)


class StateLost(RuntimeError):
    """Rows that were acknowledged are in neither store nor changelog; the text says which."""


class Offsets(Protocol):
    """What is asked of a consumer."""

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int | None]: ...

    async def committed_sources(self) -> Mapping[TP, int | None]:
        """Return the next offset to read of each source partition held, None if none is known."""


Covered = Callable[[int, str], int | None]


async def require_whole(
    table: PartitionTable,
    partitions: set[int],
    offsets: Offsets,
    covered: Covered,
    settings: Settings,
) -> None:
    """Raise StateLost when partitions that were just recovered lack a part, or log it if accepted.

    ``covered`` gives the highest offset of a topic, named without prefix, that a partition's
    ledger covers, -1 for none, and None once the partition has been taken away again.
    """
    problems = await _cut_off(table, partitions, offsets.earliest_offsets)
    committed = await offsets.committed_sources()
    for tp, next_offset in sorted(committed.items()):
        if tp.partition not in partitions or next_offset is None:
            continue
        through = covered(tp.partition, short_name(settings, tp.topic))
        if through is not None and next_offset - 1 > through:
            problems.append(
                f"{tp.topic}[{tp.partition}] is committed up to offset {next_offset}, "
                f"but the state found reflects it only up to {through + 1}"
            )
    if not problems:
        return
    text = f"table {table.name} is not whole: {'; '.join(problems)}"
    if not settings.accept_lost_state:
        raise StateLost(
            f"{text}. The README says how it is rebuilt; the setting accept_lost_state goes on "
            "without what is gone"
        )
    log.error("%s; going on without (setting accept_lost_state)", text)


async def _cut_off(
    table: PartitionTable,
    partitions: set[int],
    earliest_offsets: Callable[..., Awaitable[Mapping[TP, int | None]]],
) -> list[str]:
    topic: Any = table.changelog_topic_name
    begins = await earliest_offsets(*(TP(topic, partition) for partition in sorted(partitions)))
    return [
        f"{topic}[{tp.partition}] begins at offset {begin}, "
        + (f"the local store ends at {held}" if held >= 0 else "and the local store was empty")
        for tp, begin in sorted(begins.items())
        if begin is not None and begin > (held := table.held_at_assignment(tp.partition)) + 1
    ]
