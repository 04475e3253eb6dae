"""The neighbours process: item pairs -> item counts, and what every catalogue is told of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from faust.types import TP

from stream.agents.failures import Failures
from stream.agents.guard import Guard
from stream.agents.neighbours import Neighbours
from stream.core.item_state import CountingRules
from stream.dead_letters import StormGauge
from stream.engine.app import add_agent, add_table, new_app, partitions_of
from stream.engine.commits import Committer
from stream.engine.wholeness import Offsets, require_whole
from stream.observe import reporter
from stream.settings import Settings
from stream.tiers.base import Background, Parts, wall_clock_ms
from stream.topic_names import full_name
from stream.topics import ITEM_PAIRS, ITEM_STATE

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
GAUGES_TICK_S = 1.0


class NeighboursTier:
    """Owns the items of its partitions."""

    topics = (ITEM_PAIRS.name,)

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        self._parts = parts
        self.app = new_app(settings, "neighbours")
        self._background = Background(self.app)
        self._table = add_table(self.app, settings, ITEM_STATE.name)
        self._items = Committer(self._table, parts.sender, ITEM_STATE.name, lease=self.app.lease)
        self._table.on_partitions_ready = self._ready
        self.app.on_partitions_revoked.connect(self._revoked, weak=False)
        self._revoked_at = time.monotonic()
        failures = Failures(parts.dead_letters, "neighbours")
        stage = Neighbours(
            self._table,
            self._items,
            _counting(settings),
            failures,
            reporter(parts.metrics, parts.dead_letters, wall_clock_ms),
        )
        add_agent(
            self.app,
            settings,
            "neighbours",
            self.topics,
            Guard(stage.process, stage.reject, failures, StormGauge()),
            # Pairs are gathered for a while: each item touched is written once per batch.
            wait_s=settings.neighbours_interval_ms / 1000,
        )

    async def start(self) -> None:
        self._background.start(self._show())

    async def stop(self) -> None:
        await self._background.stop()

    async def _ready(self, partitions: set[int]) -> bool:
        new, offsets = partitions - self._items.partitions, cast(Offsets, self.app.consumer)
        if not await self._items.hold(partitions):
            return False
        await require_whole(
            self._table, new, offsets, self._items.through_if_held, self._parts.settings
        )
        metrics = self._parts.metrics
        metrics.assigned.set(len(partitions))
        metrics.rebalances.inc()
        metrics.recovery_seconds.set(time.monotonic() - self._revoked_at)
        self._parts.readiness.set("recovered", True)
        return True

    async def _revoked(self, *args: Any, **_: Any) -> None:
        revoked: set[TP] = args[-1]
        self._revoked_at = time.monotonic()
        self._parts.readiness.set("recovered", False, "rebalancing")
        changelog = full_name(self._parts.settings, ITEM_STATE.name)
        await self._items.release(partitions_of(revoked, changelog))

    async def _show(self) -> None:
        metrics = self._parts.metrics
        while True:
            metrics.state_rows.labels(ITEM_STATE.name).set(self._table.n_rows())
            metrics.state_bytes.labels(ITEM_STATE.name).set(self._table.n_bytes())
            await asyncio.sleep(GAUGES_TICK_S)


def _counting(settings: Settings) -> CountingRules:
    return CountingRules(
        cooccurrence_half_life_ms=settings.cooccurrence_half_life_d * DAY_MS,
        popularity_half_life_ms=settings.popularity_half_life_h * HOUR_MS,
        neighbours_kept=settings.neighbours_kept,
        told_share=settings.neighbours_told_share,
        told_after_ms=settings.neighbours_told_after_s * 1000,
    )
