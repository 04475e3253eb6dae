"""The preference process: user state and catalogue -> recommendations, churn risk, item pairs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from faust.types import TP

from models.catalogue import Catalogue, GivenUp
from models.churn import BaselineChurn, ChurnModel
from models.faiss_index import faiss_index
from models.item_index import ItemIndex
from models.learnt_items import LearntItems
from models.recommender import Recommender
from models.reranking import Reranking, RerankRule
from models.search import ItemSearch, SearchRule
from models.text_index import TextIndex
from models.trained_ranker import TrainedRanker
from models.user_model import UserModel
from models.versions import chosen
from models.weights import encoder_id, resolve
from stream.agents.churn import TICK_S, Churn, ChurnRules
from stream.agents.failures import Failures
from stream.agents.guard import Guard
from stream.agents.interests import Interests
from stream.agents.pace import Pace
from stream.agents.preferences import Preferences
from stream.agents.recommending import Publishing, Recommending
from stream.agents.searching import Searching
from stream.catalog import CatalogFollower
from stream.core.churn import Thresholds
from stream.core.user_state import Rules
from stream.dead_letters import StormGauge
from stream.engine.app import add_agent, add_table, new_app, partitions_of
from stream.engine.commits import Committer, PartitionCommit
from stream.engine.table import PartitionTable
from stream.engine.wholeness import Offsets, require_whole
from stream.model_watch import ModelWatch, Ready, Watched, watched_encoder
from stream.settings import Settings
from stream.spaces import space_of
from stream.tiers.base import Background, Parts, wall_clock_ms
from stream.topic_names import full_name
from stream.topics import CLICKSTREAM, EMBEDDED_TEXTS, USER_STATE, USERS
from stream.trained import open_churn_model, open_ranker, open_user_model

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
#: Recommendations that were put off are looked for this often.
DUE_TICK_S = 0.02
GAUGES_TICK_S = 1.0
#: Changed items are found by their words about so much later, so many of them at a time.
WORDS_TICK_S, WORDS_SLICE = 0.5, 64
#: A new user model learns of the catalogue for a quarter of the time: shoppers wait for the rest.
LEARNING_RESTS_FOR = 3.0


class PreferenceTier:
    """Owns the users of its partitions, and holds the whole catalogue."""

    topics = (CLICKSTREAM.name, EMBEDDED_TEXTS.name, USERS.name)

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        self._parts = parts
        self.app = new_app(settings, "preference")
        self._background = Background(self.app)
        model = resolve(settings.encoder, sha256=settings.encoder_sha256)
        self._encoder_id = encoder_id(model)
        self._texts = TextIndex() if settings.search_results else None
        self._dim = model.dim
        self._user_model = user_model(settings, self._encoder_id, self._dim)
        self._ranker = ranker(settings, self._encoder_id, self._user_model)
        self._churn_model = churn_model(settings)
        self._catalogue = _catalogue(
            settings, self._dim, self._index, self._texts, self._user_model
        )
        self._follower = CatalogFollower(settings, self._catalogue, self._encoder_id)
        self._n_refused = 0
        self._is_stopping = False
        self._tables: dict[str, PartitionTable] = {}
        self._add_users()
        self.app.on_partitions_revoked.connect(self._revoked, weak=False)
        self._revoked_at = time.monotonic()

    def _index(self, dim: int, expected_items: int) -> ItemIndex:
        """Return an index for so many items, and show its kind: it changes as a catalogue grows."""
        index = faiss_index(dim, expected_items)
        kind = type(index).__name__.removesuffix("Index").lower()
        self._parts.metrics.show_index_kind(kind, self._encoder_id)
        return index

    def _add_users(self) -> None:
        parts, settings = self._parts, self._parts.settings
        table = self._tables[USER_STATE.name] = add_table(self.app, settings, USER_STATE.name)
        self._users = Committer(
            table,
            parts.sender,
            USER_STATE.name,
            lease=self.app.lease,
            space=space_of(self._encoder_id, self._catalogue.dim),
        )
        rules = Rules.of(settings)
        failures = Failures(parts.dead_letters, "preferences")
        tracing, report = parts.watched("preferences")
        self._recommending = Recommending(
            self._catalogue,
            _recommender(settings, self._catalogue, self._user_model, self._ranker),
            self._users,
            rules,
            _publishing(settings, self._encoder_id),
        )
        self._churn = Churn(self._churn_model, self._users, _churn_rules(settings), time.monotonic)
        self._preferences = Preferences(
            table=table,
            committer=self._users,
            sender=parts.sender,
            catalogue=self._catalogue,
            recommending=self._recommending,
            searching=self._searching(rules),
            churn=self._churn,
            rules=rules,
            encoder_id=self._encoder_id,
            failures=failures,
            pace=Pace(settings.batch_max, time.monotonic),
            clock=wall_clock_ms,
            report=report,
            tracing=tracing,
        )
        table.on_partitions_ready = self._users_ready
        add_agent(
            self.app,
            settings,
            "preferences",
            (CLICKSTREAM.name, EMBEDDED_TEXTS.name, USERS.name),
            Guard(self._preferences.process, self._preferences.reject, failures, StormGauge()),
            wait_s=settings.batch_wait_ms / 1000,
        )

    def _searching(self, rules: Rules) -> Searching | None:
        settings = self._parts.settings
        if self._texts is None:
            return None
        is_personal = settings.search_personalisation > 0
        return Searching(
            self._catalogue,
            ItemSearch(self._catalogue, self._texts, _search_rule(settings), settings.n_candidates),
            self._users,
            Interests(self._catalogue, rules) if is_personal else None,
            encoder_id=self._encoder_id,
            k=settings.search_k,
            reranking=reranking(settings, self._title),
        )

    def _title(self, item_id: str) -> str:
        facts = self._catalogue.facts(item_id)
        return facts.title if facts is not None else ""

    async def start(self) -> None:
        """Catch up with the catalogue, so that no user is answered from half of it.

        Raises OtherEncoder before any user's row is touched.
        """
        self._parts.readiness.set("model", True, self._encoder_id)
        await self._follower.start()
        await self._follower.caught_up()
        self._follower.require_own_vectors()
        await self._follower.vectors_there(self._awaits_catalogue)
        if self._texts is not None:
            await asyncio.to_thread(self._texts.refresh)
            self._background.start(self._tick(self._find_by_words, WORDS_TICK_S))
        self._background.start(self._follower.watch())
        self._parts.readiness.set("catalogue_caught_up", True)
        self._background.start(self._publish_due())
        self._background.start(self._tick(self._preferences.assess_silent, TICK_S))
        self._background.start(self._tick(self._show, GAUGES_TICK_S))
        self._background.start(self._model_watch().run())

    def _awaits_catalogue(self, reason: str) -> None:
        self._parts.readiness.set("catalogue_caught_up", False, reason)

    async def stop(self) -> None:
        # Or its thread would learn to the end.
        self._is_stopping = True
        self._catalogue.give_up()
        await self._background.stop()
        await self._follower.stop()

    def _model_watch(self) -> ModelWatch:
        settings = self._parts.settings
        watch = ModelWatch(self._parts.metrics, settings.model_check_s, wall_clock_ms)
        if self._user_model is not None:
            folder = Path(settings.user_model)
            watch.add(Watched("user", folder, self._user_model.name, self._ready_user_model))
        if self._ranker is not None:
            folder = Path(settings.ranker_model)
            watch.add(Watched("ranker", folder, self._ranker.name, self._ready_ranker))
        if settings.churn_model:
            folder = Path(settings.churn_model)
            watch.add(Watched("churn", folder, self._churn_model.name, self._ready_churn_model))
        encoder = watched_encoder(settings.encoder, settings.encoder_sha256, self._encoder_id)
        if encoder is not None:
            watch.add(encoder)
        return watch

    def _ready_user_model(self, folder: Path) -> Ready:
        """Load a user model and have it learn of the whole catalogue; in a thread."""
        model = open_user_model(folder, self._encoder_id, self._dim)
        learnt = LearntItems(model, partial(faiss_index, model.dim))
        if self._is_stopping:
            raise GivenUp
        self._catalogue.learn(learnt, LEARNING_RESTS_FOR)

        def change() -> None:
            self._catalogue.adopt(learnt)
            self._rank_by(model, self._ranker)

        use = partial(self._preferences.between_batches, change)
        return Ready(model.name, use, self._catalogue.give_up)

    def _ready_ranker(self, folder: Path) -> Ready:
        has_user_model = self._user_model is not None
        new = open_ranker(folder, self._parts.settings, self._encoder_id, has_user_model)

        def change() -> None:
            self._rank_by(self._user_model, new)

        return Ready(new.name, partial(self._preferences.between_batches, change))

    def _rank_by(self, model: UserModel | None, ranker: TrainedRanker | None) -> None:
        self._user_model, self._ranker = model, ranker
        settings = self._parts.settings
        self._recommending.use(_recommender(settings, self._catalogue, model, ranker))

    def _ready_churn_model(self, folder: Path) -> Ready:
        model = open_churn_model(folder, self._parts.settings.churn_horizon_days)
        change = partial(self._churn.use, model)
        return Ready(model.name, partial(self._preferences.between_batches, change))

    async def _publish_due(self) -> None:
        while True:
            if not await self._preferences.publish_due():
                await asyncio.sleep(DUE_TICK_S)

    @staticmethod
    async def _tick(step: Any, every_s: float) -> None:
        while True:
            await step()
            await asyncio.sleep(every_s)

    async def _users_ready(self, partitions: set[int]) -> bool:
        """Take over the partitions assigned, once their rows are as the changelog says."""
        new = partitions - self._users.partitions
        if not await self._users.hold(partitions):
            return False
        table, offsets = self._tables[USER_STATE.name], cast(Offsets, self.app.consumer)
        await require_whole(table, new, offsets, self._users.through_if_held, self._parts.settings)
        await self._name_rows(new)
        for partition in new:
            self._background.start(self._preferences.take_over(partition))
        readiness, metrics = self._parts.readiness, self._parts.metrics
        readiness.set("partitions_assigned", True, f"{len(partitions)} partitions")
        readiness.set("recovered", True)
        metrics.assigned.set(len(partitions))
        metrics.rebalances.inc()
        metrics.recovery_seconds.set(time.monotonic() - self._revoked_at)
        return True

    async def _name_rows(self, partitions: set[int]) -> None:
        """Say of rows that do not which encoder's they are: an earlier version has left them.

        Raises OtherEncoder where they may be of one that made some of the item vectors.
        """
        for partition in self._users.nameless(partitions):
            what = f"rows of {USER_STATE.name}, partition {partition}"
            self._follower.require_no_foreign_vectors(what)
            await self._users.commit([PartitionCommit(partition)])

    async def _revoked(self, *args: Any, **_: Any) -> None:
        revoked: set[TP] = args[-1]
        self._revoked_at = time.monotonic()
        self._parts.readiness.set("recovered", False, "rebalancing")
        users = partitions_of(revoked, full_name(self._parts.settings, USER_STATE.name))
        await self._preferences.release(users)

    async def _find_by_words(self) -> None:
        assert self._texts is not None
        # In a thread: now and then a commit waits a tenth of a second for an older one's merging,
        # without the interpreter. What needs it, cutting texts into words, takes 2 ms a slice.
        n_waiting = self._texts.n_waiting
        while n_waiting:
            n_waiting = await asyncio.to_thread(self._texts.refresh, WORDS_SLICE)
            await asyncio.sleep(DUE_TICK_S)

    async def _show(self) -> None:
        metrics, catalogue, follower = self._parts.metrics, self._catalogue, self._follower
        metrics.show_index(len(catalogue), catalogue.n_vectors, catalogue.version, wall_clock_ms())
        metrics.put_off.set(self._preferences.n_put_off)
        for topic, lag in follower.lag.items():
            metrics.follower_lag.labels(topic).set(lag)
        metrics.count_refused_vectors("encoder", follower.refused_vectors - self._n_refused)
        self._n_refused = follower.refused_vectors
        for name, table in self._tables.items():
            metrics.state_rows.labels(name).set(table.n_rows())
            metrics.state_bytes.labels(name).set(table.n_bytes())


def _catalogue(
    settings: Settings,
    dim: int,
    index: Callable[[int, int], ItemIndex],
    texts: TextIndex | None,
    model: UserModel | None,
) -> Catalogue:
    return Catalogue(
        dim,
        partial(index, dim),
        cooccurrence_half_life_ms=settings.cooccurrence_half_life_d * DAY_MS,
        popularity_half_life_ms=settings.popularity_half_life_h * HOUR_MS,
        cooccurrence_ridge=settings.cooccurrence_ridge,
        texts=texts,
        learnt=None if model is None else LearntItems(model, partial(faiss_index, model.dim)),
    )


def _recommender(
    settings: Settings,
    catalogue: Catalogue,
    model: UserModel | None,
    ranker: TrainedRanker | None,
) -> Recommender:
    return Recommender(
        catalogue,
        text_share=settings.text_share,
        step_decay=settings.step_decay,
        trend=settings.trend,
        diversity=settings.diversity,
        n_candidates=settings.n_candidates,
        user_model=model,
        ranker=ranker,
    )


def user_model(settings: Settings, encoder_id: str, dim: int) -> UserModel | None:
    """Return the model that the settings name, None without one; raises ModelError."""
    if not settings.user_model:
        return None
    return open_user_model(chosen(Path(settings.user_model)), encoder_id, dim)


def ranker(
    settings: Settings, encoder_id: str, user_model: UserModel | None
) -> TrainedRanker | None:
    """Return the ranker that the settings name, None without one; raises ModelError."""
    if not settings.ranker_model:
        return None
    folder = chosen(Path(settings.ranker_model))
    return open_ranker(folder, settings, encoder_id, user_model is not None)


def _search_rule(settings: Settings) -> SearchRule:
    return SearchRule(
        words=settings.search_words,
        feedback=settings.search_feedback,
        interest=settings.search_personalisation,
        heads=settings.search_heads,
    )


def reranking(settings: Settings, title_of: Callable[[str], str]) -> Reranking | None:
    """Return what the settings name, None without a model; raises ModelError."""
    if not settings.search_reranker:
        return None
    # ONNX Runtime takes some 30 MB, and a package that only who reranks installs.
    from models.cross_encoder import open_cross_encoder

    rule = RerankRule(
        settings.search_reranker_weight,
        settings.search_reranker_k,
        settings.search_reranker_ms / 1000,
    )
    return Reranking(open_cross_encoder(settings.search_reranker), title_of, rule, time.monotonic)


def _publishing(settings: Settings, encoder: str) -> Publishing:
    return Publishing(
        encoder_id=encoder,
        top_k=settings.top_k,
        min_interval_ms=settings.min_interval_ms,
        ttl_ms=round(settings.recommendation_ttl_s * 1000),
    )


def churn_model(settings: Settings) -> ChurnModel:
    """Return the model that the settings name; raises ModelError."""
    if settings.churn_model:
        return open_churn_model(chosen(Path(settings.churn_model)), settings.churn_horizon_days)
    return BaselineChurn(
        typical_order=settings.churn_typical_order, base_shift=settings.churn_base_shift
    )


def _churn_rules(settings: Settings) -> ChurnRules:
    return ChurnRules(
        thresholds=Thresholds(settings.churn_low, settings.churn_high, settings.churn_hysteresis),
        horizon_days=settings.churn_horizon_days,
        assess_s=settings.churn_assess_s,
        clock=settings.clock,
        ttl_ms=round(settings.state_ttl_days * DAY_MS),
    )
