"""clickstream, embedded-texts, users -> user-state -> all that is published of users."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter

from models.catalogue import Catalogue
from stream.agents.churn import Churn
from stream.agents.failures import Failures
from stream.agents.feedback import count_acts
from stream.agents.item_vectors import ItemVectors
from stream.agents.pace import Pace
from stream.agents.recommending import Recommending
from stream.agents.reports import BatchReport, Report
from stream.agents.reviewing import add_insights
from stream.agents.searching import Searching
from stream.agents.work import Work
from stream.core.drafts import UserDraft, user_key
from stream.core.events import BadEvent
from stream.core.fold import Sourced, Touch, items_of
from stream.core.intake import intake
from stream.core.pairs import Partitions, pair_messages
from stream.core.state_cache import Known, StateCache
from stream.core.user_rows import has_pending
from stream.core.user_state import STAMP_BYTES, Rules
from stream.delivery import Sender, SourceMessage
from stream.engine.commits import Committer, Effect, PartitionCommit
from stream.engine.table import CONTROL, PartitionTable
from stream.messages import BadDerived
from stream.topics import CHURN_RISK, ITEM_PAIRS, RECOMMENDATIONS, SEARCH_RESULTS
from stream.tracing import Tracing

#: Users folded, or rows looked at, between two breaths of the event loop.
SLICE = 500


class Preferences:
    """Folds micro-batches into user states and publishes what follows from them.

    One at a time: batches, recommendations put off, and the timer for the silent take turns.
    """

    def __init__(
        self,
        *,
        table: PartitionTable,
        committer: Committer,
        sender: Sender,
        catalogue: Catalogue,
        recommending: Recommending,
        searching: Searching | None,
        churn: Churn,
        rules: Rules,
        encoder_id: str,
        failures: Failures,
        pace: Pace,
        clock: Callable[[], int],
        report: Report,
        tracing: Tracing | None = None,
    ) -> None:
        self._table = table
        self._committer = committer
        self._catalogue = catalogue
        self._recommending = recommending
        self._searching = searching
        self._churn = churn
        self._rules = rules
        self._encoder_id = encoder_id
        self._failures = failures
        self._pace = pace
        self._clock = clock
        self._report = report
        self._tracing = tracing
        self._states = StateCache()
        self._partitions = Partitions(
            lambda item_id: sender.partition_of(ITEM_PAIRS.name, item_id.encode())
        )
        self._turn = asyncio.Lock()

    async def process(self, batch: Sequence[SourceMessage]) -> None:
        """Fold a micro-batch; return when its state and outputs have arrived."""
        with self._pace.reading(len(batch)):
            await self._process(batch)

    async def _process(self, batch: Sequence[SourceMessage]) -> None:
        async with self._turn:
            started = perf_counter()
            work = Work(BatchReport("batch", len(batch)))
            self._take_in(batch, work)
            work.load(self._table, self._states)
            if self._tracing is not None:
                self._tracing.hear(work.drafts)
            await self._fold(work)
            work.report.seconds["fold"] = perf_counter() - started
            now_ms = self._clock()
            if self._searching is not None:
                await self._searching.publish(work, now_ms)
            add_insights(work, self._committer)
            due = self._recommending.due(work, now_ms, self._pace.room_for_batch())
            self._churn.assess_active(work, now_ms)
            await self._recommending.publish(due, work, now_ms, self._as_of(work, now_ms))
            await self._commit(work)
            work.report.seconds["batch"] = perf_counter() - started
        self._report(work.report)

    async def publish_due(self) -> bool:
        """Publish recommendations that were put off until now; False when there was none to."""
        if not len(self._catalogue) or not self.n_put_off:
            return False
        async with self._turn:
            users = self._recommending.put_off.pop(self._clock(), self._pace.room_for_waiting())
            if not users:
                return False
            held = self._committer.partitions
            work = Work(BatchReport("due", len(users)))
            work.load(self._table, self._states, [who for who in users if who[0] in held])
            now_ms = self._clock()
            due = self._recommending.still_due(work, now_ms)
            await self._recommending.publish(due, work, now_ms, self._as_of(work, now_ms))
            await self._commit(work)
        self._report(work.report)
        return True

    @property
    def n_put_off(self) -> int:
        """Return for how many users a recommendation is put off."""
        return len(self._recommending.put_off)

    async def assess_silent(self) -> None:
        """Assess the next slice of users for churn, whether they did anything or not."""
        for partition in sorted(self._committer.partitions):
            async with self._turn:
                if partition not in self._committer.partitions:
                    continue
                work = Work(BatchReport("churn", 0))
                self._churn.assess_slice(work, self._table, partition, self._clock())
                await self._commit(work)
            self._report(work.report)

    async def take_over(self, partition: int) -> None:
        """Find the recommendations that were put off when the last owner stopped."""
        after, n_users = b"", 0
        while partition in self._committer.partitions:
            rows = self._table.scan(partition, after, SLICE)
            for key, row in rows:
                if has_pending(row):
                    self._recommending.put_off.put(partition, key.decode(), 0)
            n_users += len(rows)
            if len(rows) < SLICE:
                self._churn.take_over(partition, n_users)
                return
            after = rows[-1][0]
            await asyncio.sleep(0)

    async def between_batches(self, change: Callable[[], None]) -> None:
        """Make a change of which no batch, and no list of one, may see half."""
        async with self._turn:
            change()

    async def release(self, partitions: set[int]) -> None:
        """Let go of partitions, once what is being done to them is done."""
        async with self._turn:
            await self._committer.release(partitions)
            self._recommending.put_off.drop(partitions)
            self._churn.release(partitions)

    def _as_of(self, work: Work, wall_ms: int) -> int:
        """Return the time that the work's partitions have reached, by the clock of the settings."""
        partitions = {draft.partition for draft in work.drafts}
        times = [
            self._churn.now(number, wall_ms, work.commit(number).stream_time_ms)
            for number in partitions
        ]
        return max(times, default=wall_ms)

    def _take_in(self, batch: Sequence[SourceMessage], work: Work) -> None:
        reached: dict[tuple[int, str], int] = {}
        latest_ms: dict[int, int] = {}
        for message in batch:
            partition, place = message.partition, (message.partition, message.topic)
            if message.offset > reached.get(place, -1):
                reached[place] = message.offset
            try:
                taken = intake(message, self._encoder_id)
            except (BadEvent, BadDerived) as error:
                self._failed(message, error, work)
                continue
            work.take(taken)
            if type(taken.content) is Sourced:
                at_ms = taken.content.event_time_ms()
                if at_ms > latest_ms.get(partition, 0):
                    latest_ms[partition] = at_ms
        for (partition, topic), offset in reached.items():
            work.commit(partition).through[topic] = offset
        for partition, at_ms in latest_ms.items():
            work.commit(partition).stream_time_ms = at_ms

    async def reject(self, message: SourceMessage, error: Exception) -> None:
        """Dead-letter a message that could not be processed, and go past it."""
        async with self._turn:
            work = Work(BatchReport("batch", 1))
            work.commit(message.partition).through[message.topic] = message.offset
            self._failed(message, error, work)
            await self._commit(work)
        self._report(work.report)

    def _failed(self, message: SourceMessage, error: Exception, work: Work) -> None:
        # Read again after a crash, it is in a ledger already.
        if message.offset > self._committer.through(message.partition, message.topic):
            effect = self._failures.effect(message, error, work.report)
            work.commit(message.partition).effects.append(effect)

    async def _fold(self, work: Work) -> None:
        vectors = ItemVectors(self._catalogue, items_of(work.sourced()))
        outcomes: list[tuple[str, str]] = []
        for number, draft in enumerate(work.drafts, start=1):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            draft.apply(vectors, self._rules, self._committer.covered(draft.partition))
            topics = [taken.message.topic for taken in draft.taken]
            outcomes += zip(topics, draft.outcomes, strict=True)
            work.report.n_future += draft.n_future
            work.report.n_trimmed += draft.is_trimmed
        work.report.events.update(outcomes)
        count_acts(work.drafts, work.report)

    async def _commit(self, work: Work) -> None:
        for draft in work.drafts:
            if draft.erased_now:
                # Before what the batch publishes of a user who came back in it.
                work.commit(draft.partition).effects[:0] = _erasures(draft)
        for partition, touches in _touches(work).items():
            work.commit(partition).effects.extend(self._pairs(partition, touches))
        commits = work.commits
        if self._tracing is not None:
            self._tracing.mark(commits)
        for commit in commits:
            work.report.outputs.update(effect.topic for effect in commit.effects)
            work.report.row_bytes += [
                STAMP_BYTES + len(row)
                for key, row in commit.rows.items()
                if row is not None and not key.startswith(CONTROL)
            ]
        started = perf_counter()
        await self._committer.commit(commits)
        if erased := {draft.partition for draft in work.drafts if draft.erased_now}:
            # The ledger names whom the commit was about, and would until somebody else acts.
            await self._committer.commit([PartitionCommit(number) for number in sorted(erased)])
        for draft in work.drafts:
            if draft.row is not None:
                self._states.put((draft.partition, draft.user_id), Known(draft.row, draft.kept))
        work.report.seconds["publish"] = perf_counter() - started

    def _pairs(self, partition: int, touches: Sequence[Touch]) -> list[Effect]:
        messages = pair_messages(
            touches,
            self._partitions.__getitem__,
            source_partition=partition,
            sequence=self._committer.next_sequence(partition),
        )
        return [Effect("", ITEM_PAIRS.name, None, raw, number) for number, raw in messages]


def _touches(work: Work) -> dict[int, list[Touch]]:
    """Return by partition what the acts of a batch mean to items."""
    touches: dict[int, list[Touch]] = {}
    for draft in work.drafts:
        if draft.touches and draft.publishable():
            touches.setdefault(draft.partition, []).extend(draft.touches)
    return touches


def _erasures(draft: UserDraft) -> list[Effect]:
    """Tombstones for what was published of an erased user."""
    key, published = user_key(draft.user_id), (RECOMMENDATIONS, CHURN_RISK, SEARCH_RESULTS)
    return [Effect("", topic.name, key, None) for topic in published]
