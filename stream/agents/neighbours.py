"""item-pairs -> item-state -> item-neighbours: what is taken together, and what is popular."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from stream.agents.failures import Failures
from stream.agents.reports import BatchReport, Report
from stream.core import item_rows
from stream.core.item_state import (
    CountingRules,
    ItemState,
    PairsLedger,
    admit,
    fold_batch,
    is_news,
    to_neighbours,
    told,
    touches_by_item,
)
from stream.delivery import SourceMessage
from stream.engine.commits import Committer, Effect, PartitionCommit
from stream.engine.table import CONTROL, PartitionTable
from stream.messages import BadDerived, ItemPairs, read_item_pairs, to_message
from stream.topics import ITEM_NEIGHBOURS, ITEM_PAIRS

PAIRS_LEDGER_KEY = CONTROL + b"pairs"


class Neighbours:
    """Folds the pairs of a micro-batch into the items' counts, and publishes what is news."""

    def __init__(
        self,
        table: PartitionTable,
        committer: Committer,
        rules: CountingRules,
        failures: Failures,
        report: Report,
    ) -> None:
        self._table = table
        self._committer = committer
        self._rules = rules
        self._failures = failures
        self._report = report

    async def process(self, batch: Sequence[SourceMessage]) -> None:
        """Return when the batch's counts and messages have arrived."""
        started = perf_counter()
        report = BatchReport(stage="neighbours", n_events=len(batch))
        by_partition: dict[int, list[SourceMessage]] = {}
        for message in batch:
            by_partition.setdefault(message.partition, []).append(message)
        await self._committer.commit(
            [self._partition(number, of_it, report) for number, of_it in by_partition.items()]
        )
        report.seconds["neighbours"] = perf_counter() - started
        self._report(report)

    async def reject(self, message: SourceMessage, error: Exception) -> None:
        """Dead-letter a message that could not be processed, and go past it."""
        report = BatchReport(stage="neighbours", n_events=1)
        through = {message.topic: message.offset}
        effects = [self._failures.effect(message, error, report)]
        commit = PartitionCommit(message.partition, effects=effects, through=through)
        await self._committer.commit([commit])
        self._report(report)

    def _partition(
        self, partition: int, batch: Sequence[SourceMessage], report: BatchReport
    ) -> PartitionCommit:
        commit = PartitionCommit(partition, through={ITEM_PAIRS.name: batch[-1].offset})
        readable: list[tuple[int, ItemPairs]] = []
        for message in batch:
            try:
                readable.append((message.offset, read_item_pairs(message.value or b"")))
            except BadDerived as error:
                # Read again after a crash, it is in a ledger already.
                if message.offset > self._committer.through(partition, message.topic):
                    commit.effects.append(self._failures.effect(message, error, report))
        stored = self._read(partition, PAIRS_LEDGER_KEY)
        ledger = item_rows.ledger_from_row(stored) if stored else PairsLedger()
        ledger, admitted = admit(ledger, readable)
        report.count(ITEM_PAIRS.name, "folded", len(admitted))
        report.count(ITEM_PAIRS.name, "repeat", len(readable) - len(admitted))
        by_item = touches_by_item(admitted)
        changed = fold_batch(self._states(partition, list(by_item)), by_item, self._rules)
        for item_id, state in changed.items():
            if is_news(state, self._rules):
                value = to_message(to_neighbours(state, self._rules))
                commit.effects.append(Effect("", ITEM_NEIGHBOURS.name, item_id.encode(), value))
                report.outputs[ITEM_NEIGHBOURS.name] += 1
                state = told(state)
            commit.rows[item_id.encode()] = item_rows.to_row(state)
        # Behind the items' rows: a ledger that were ahead of them would drop uncounted pairs.
        commit.rows[PAIRS_LEDGER_KEY] = item_rows.ledger_to_row(ledger)
        return commit

    def _read(self, partition: int, key: bytes) -> bytes | None:
        return self._table.rows(partition, [key])[0]

    def _states(self, partition: int, item_ids: Sequence[str]) -> dict[str, ItemState]:
        rows = self._table.rows(partition, [item_id.encode() for item_id in item_ids])
        return {
            item_id: item_rows.from_row(row)
            for item_id, row in zip(item_ids, rows, strict=True)
            if row is not None
        }
