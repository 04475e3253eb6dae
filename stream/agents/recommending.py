"""Whose recommendation goes out now, whose is put off, and the messages themselves."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from models.catalogue import Catalogue
from models.profile import Profile, RecommendedItem
from models.recommender import Recommender
from stream.agents.work import Work
from stream.core.drafts import UserDraft, user_key
from stream.core.profiles import profiles_of_kept
from stream.core.recommend import is_due, recommendation_id, to_recommendation
from stream.core.user_state import Rules
from stream.engine.commits import Committer, Effect
from stream.messages import ModelInfo, Trigger, to_message
from stream.topics import RECOMMENDATIONS

#: While there is no item to recommend, a user is looked at again after this long.
EMPTY_CATALOGUE_MS = 1000
#: Profiles ranked between two breaths of the event loop; larger slices gain next to nothing.
SLICE = 32


@dataclass(frozen=True, slots=True)
class Publishing:
    """The settings of what is published, and the name of the encoder all vectors are of."""

    encoder_id: str
    top_k: int
    min_interval_ms: int
    ttl_ms: int


class DueUsers:
    """Users whose recommendation was put off, by the time it is due.

    When the clock is set back everyone's time has come: nobody waits for it to be that late again.
    """

    def __init__(self) -> None:
        self._popped_ms = 0
        self._heap: list[tuple[int, int, str]] = []
        self._due_ms: dict[tuple[int, str], int] = {}

    def __len__(self) -> int:
        return len(self._due_ms)

    def put(self, partition: int, user_id: str, due_ms: int) -> None:
        """Put a user off until ``due_ms``; an earlier time that was set stays."""
        known = self._due_ms.get((partition, user_id))
        if known is None or due_ms < known:
            self._due_ms[partition, user_id] = due_ms
            heapq.heappush(self._heap, (due_ms, partition, user_id))

    def pop(self, now_ms: int, limit: int) -> list[tuple[int, str]]:
        """Return up to ``limit`` (partition, user) whose time has come, earliest first."""
        if now_ms < self._popped_ms:
            self._due_ms = {who: min(due_ms, now_ms) for who, due_ms in self._due_ms.items()}
            self._heap = [(due_ms, *who) for who, due_ms in self._due_ms.items()]
            heapq.heapify(self._heap)
        self._popped_ms = now_ms
        users: list[tuple[int, str]] = []
        while self._heap and self._heap[0][0] <= now_ms and len(users) < limit:
            due_ms, partition, user_id = heapq.heappop(self._heap)
            if self._due_ms.get((partition, user_id)) == due_ms:
                del self._due_ms[partition, user_id]
                users.append((partition, user_id))
        return users

    def drop(self, partitions: set[int]) -> None:
        """Forget the users of partitions that are no longer held."""
        for partition, user_id in [who for who in self._due_ms if who[0] in partitions]:
            del self._due_ms[partition, user_id]


class Recommending:
    """Turns triggers into recommendations: one per user and interval, from the latest state."""

    def __init__(
        self,
        catalogue: Catalogue,
        recommender: Recommender,
        committer: Committer,
        rules: Rules,
        publishing: Publishing,
    ) -> None:
        self._catalogue = catalogue
        self._recommender = recommender
        self._committer = committer
        self._rules = rules
        self._publishing = publishing
        self.put_off = DueUsers()

    def use(self, recommender: Recommender) -> None:
        """Rank by another recommender from now on; not while something is being published."""
        self._recommender = recommender

    def due(self, work: Work, now_ms: int, room: int) -> list[UserDraft]:
        """Return the drafts whose recommendation goes out now, up to ``room`` of them.

        The other triggered ones are put off.
        """
        due: list[UserDraft] = []
        for draft in work.drafts:
            trigger = self._open_trigger(draft)
            if trigger is None or not draft.publishable():
                continue
            work.report.n_coalesced += draft.pending is not None
            draft.note_due(trigger)
            if not self._is_due_or_put_off(draft, now_ms):
                continue
            if len(due) < room:
                due.append(draft)
            else:
                self.put_off.put(draft.partition, draft.user_id, now_ms)
        return due

    def still_due(self, work: Work, now_ms: int) -> list[UserDraft]:
        """Return the drafts that were put off until now, and not answered meanwhile."""
        return [
            draft
            for draft in work.drafts
            if draft.pending is not None
            and draft.publishable()
            and self._is_due_or_put_off(draft, now_ms)
        ]

    def _is_due_or_put_off(self, draft: UserDraft, now_ms: int) -> bool:
        recommended_ms, interval_ms = draft.recommended_ms, self._publishing.min_interval_ms
        if is_due(recommended_ms, now_ms, interval_ms):
            return True
        self.put_off.put(draft.partition, draft.user_id, recommended_ms + interval_ms)
        return False

    def _open_trigger(self, draft: UserDraft) -> Trigger | None:
        if draft.trigger is not None:
            return draft.trigger
        covered = draft.covered_trigger
        if covered is None:
            return None
        sent = self._committer.was_sent(draft.partition, recommendation_id(covered))
        return None if sent else covered

    async def publish(
        self, due: Sequence[UserDraft], work: Work, now_ms: int, as_of_ms: int
    ) -> None:
        """Add the messages to the commit; while the catalogue is empty triggers stay pending.

        ``as_of_ms`` is the time for which purchases, popularity and arrivals count: now, or in a
        replay of an old log the time of the log.
        """
        if not due:
            return
        if not len(self._catalogue):
            # Decided for all of them at once: the first items may come between two slices.
            for draft in due:
                self.put_off.put(draft.partition, draft.user_id, now_ms + EMPTY_CATALOGUE_MS)
            return
        started = perf_counter()
        kept = [draft.kept for draft in due]
        profiles = profiles_of_kept(kept, self._catalogue, as_of_ms, self._rules)
        # On the loop: a thread would let go of the interpreter at each of its many short array
        # operations and wait for it again, which made a list five times as dear and queued 200
        # acts a second for seconds. In slices, so that the loop still answers.
        lists: list[list[RecommendedItem]] = []
        for first in range(0, len(profiles), SLICE):
            lists += self._recommender.recommend(
                profiles[first : first + SLICE], self._publishing.top_k, as_of_ms
            )
            await asyncio.sleep(0)
        model = ModelInfo(
            encoder=self._publishing.encoder_id,
            index_version=self._catalogue.version,
            ranker=self._recommender.name,
        )
        for draft, profile, items in zip(due, profiles, lists, strict=True):
            trigger = draft.pending
            if trigger is None:
                continue
            draft.note_answered(now_ms)
            if items:
                self._add(draft, trigger, profile, items, model, work, now_ms)
        work.report.seconds["recommend"] = perf_counter() - started

    def _add(
        self,
        draft: UserDraft,
        trigger: Trigger,
        profile: Profile,
        items: list[RecommendedItem],
        model: ModelInfo,
        work: Work,
        now_ms: int,
    ) -> None:
        recommendation = to_recommendation(
            draft.user_id,
            trigger,
            items,
            cold_start=profile.cold_start,
            now_ms=now_ms,
            ttl_ms=self._publishing.ttl_ms,
            model=model,
        )
        if self._committer.was_sent(draft.partition, recommendation.recommendation_id):
            return
        work.commit(draft.partition).effects.append(
            Effect(
                recommendation.recommendation_id,
                RECOMMENDATIONS.name,
                user_key(draft.user_id),
                to_message(recommendation),
            )
        )
        work.report.n_cold += profile.cold_start
        work.report.sources.update(item.source for item in items)
        work.report.listed += [item.item_id for item in items]
        work.report.published(
            RECOMMENDATIONS.name, trigger.event_time_ms, draft.arrival_ms(trigger)
        )
