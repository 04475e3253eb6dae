"""Work: one micro-batch on its way through the preference tier, user by user."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from stream.agents.reports import BatchReport
from stream.core.drafts import UserDraft, erasure_key, user_key
from stream.core.fold import Sourced
from stream.core.intake import Taken
from stream.core.state_cache import NOBODY, StateCache
from stream.engine.commits import PartitionCommit
from stream.engine.table import PartitionTable


class Work:
    """The users a batch concerns, and what is to be committed per partition."""

    def __init__(self, report: BatchReport) -> None:
        self.report = report
        self._taken: dict[tuple[int, str], list[Taken]] = {}
        self._drafts: dict[tuple[int, str], UserDraft] = {}
        self._commits: dict[int, PartitionCommit] = {}

    @property
    def drafts(self) -> Collection[UserDraft]:
        return self._drafts.values()

    @property
    def commits(self) -> list[PartitionCommit]:
        """Return what there is to commit, drafts' rows included."""
        for draft in self.drafts:
            self.commit(draft.partition).rows.update(draft.rows())
        return [c for c in self._commits.values() if c.rows or c.effects or c.through]

    def commit(self, partition: int) -> PartitionCommit:
        """Return the part of the commit that belongs to a partition."""
        if partition not in self._commits:
            self._commits[partition] = PartitionCommit(partition)
        return self._commits[partition]

    def take(self, taken: Taken) -> None:
        """Add a message; those of one user stay in order."""
        self._taken.setdefault((taken.message.partition, taken.user_id), []).append(taken)

    def sourced(self) -> Iterator[Sourced]:
        """Yield the events taken, those that erase left out."""
        for of_user in self._taken.values():
            for taken in of_user:
                if type(taken.content) is Sourced:
                    yield taken.content

    def load(
        self, table: PartitionTable, states: StateCache, others: Iterable[tuple[int, str]] = ()
    ) -> None:
        """Read the users of the messages taken, and ``others``, from the table."""
        by_partition: dict[int, list[str]] = {}
        for partition, user_id in dict.fromkeys([*self._taken, *others]):
            by_partition.setdefault(partition, []).append(user_id)
        for partition, user_ids in by_partition.items():
            rows = table.rows(partition, [user_key(user_id) for user_id in user_ids])
            # Only a user without a row can be an erased one.
            new = [user_id for user_id, row in zip(user_ids, rows, strict=True) if row is None]
            marks = table.rows(partition, [erasure_key(user_id) for user_id in new])
            erasures = dict(zip(new, marks, strict=True))
            for user_id, row in zip(user_ids, rows, strict=True):
                who = partition, user_id
                known = NOBODY if row is None else states.known(who, row)
                draft = UserDraft.load(user_id, partition, known.kept, erasures.get(user_id))
                draft.taken = self._taken.get(who, [])
                self._drafts[who] = draft

    def add(self, draft: UserDraft) -> None:
        self._drafts[draft.partition, draft.user_id] = draft
