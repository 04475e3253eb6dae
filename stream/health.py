"""`/live`, `/ready` and `/metrics`: is the process alive, is it of use, and how does it do.

The server runs on the worker's own event loop, so that a blocked loop does not answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from stream.lag import PartitionLag, Place

Condition = Literal[
    "broker",  # it answers
    "deliveries",  # what was sent last has arrived
    "topics",  # every topic is there with the right partition count
    "model",  # the encoder is loaded
    "catalogue_caught_up",  # items and their vectors were read to the end once
    "partitions_assigned",
    "recovered",  # local state is as the changelog says
    "users_known",  # the edge: who declined is known under the key in use
    "progress",  # there is no lag, or offsets are being committed
]

#: Not ready without progress for this long; not alive after the setting stall_timeout_s.
NOT_READY_AFTER_S = 30.0


class CannotListen(RuntimeError):
    """The address of metrics and health cannot be had."""


@dataclass(frozen=True, slots=True)
class Check:
    """Whether one condition holds, and why (not)."""

    ok: bool
    reason: str


_NO_LAG = PartitionLag("", -1, 0, 0, None, 0, 0, 0.0)


class Progress:
    """Whether the partitions of this worker move, judged from the lag probe's readings.

    Only a stall that the broker confirms counts: without an answer from the broker, or before
    the worker has recovered its state, a restart would help nobody.
    """

    def __init__(
        self, clock: Callable[[], float], not_ready_after_s: float, dead_after_s: float
    ) -> None:
        """``clock`` gives seconds, monotonic; a reading older than not_ready_after_s is unknown."""
        self._clock = clock
        self._not_ready_after_s, self._dead_after_s = not_ready_after_s, dead_after_s
        self._mine_since_s: dict[Place, float] = {}
        self._read_at_s: float | None = None
        self._stalled_s, self._slowest = 0.0, _NO_LAG

    def working_on(self, places: Sequence[Place]) -> None:
        """Say which partitions this worker processes now: none while it recovers or rebalances.

        May be called as often as is handy: a place that stays keeps its history.
        """
        now_s = self._clock()
        self._mine_since_s = {place: self._mine_since_s.get(place, now_s) for place in places}
        if (self._slowest.topic, self._slowest.partition) not in self._mine_since_s:
            self._stalled_s, self._slowest = 0.0, _NO_LAG

    def update(self, reading: Sequence[PartitionLag]) -> None:
        """Take a reading of the group; other workers' partitions are left out."""
        self._read_at_s = self._clock()
        self._stalled_s, self._slowest = max(
            ((self._stall(lag), lag) for lag in reading),
            key=lambda stall: stall[0],
            default=(0.0, _NO_LAG),
        )

    def _stall(self, lag: PartitionLag) -> float:
        now_s = self._clock()
        # What the last owner left undone is not this worker's stall.
        mine_for_s = now_s - self._mine_since_s.get((lag.topic, lag.partition), now_s)
        return min(lag.commit_age_s, mine_for_s)

    def ready(self) -> Check:
        """Fail when a partition has lag and no commit, or when nobody knows."""
        read_at_s = self._read_at_s
        if read_at_s is None or self._clock() - read_at_s > self._not_ready_after_s:
            return Check(False, "the broker has not said how far this group is")
        return self._judge(self._not_ready_after_s)

    def live(self) -> Check:
        """Fail only when a restart would help: a stall confirmed for the long deadline."""
        return self._judge(self._dead_after_s)

    def _judge(self, deadline_s: float) -> Check:
        stalled_s, slowest = self._stalled_s, self._slowest
        if stalled_s <= deadline_s:
            return Check(True, "no lag, or offsets are being committed")
        return Check(
            False,
            f"{slowest.topic}[{slowest.partition}]: lag {slowest.lag}, "
            f"nothing committed for {stalled_s:.0f} s (at most {deadline_s:.0f})",
        )


class Readiness:
    """Named conditions, each false until the program has set it; progress is judged live."""

    def __init__(self, conditions: Sequence[Condition], progress: Progress) -> None:
        """``conditions`` are those of this tier, without progress, which every tier has."""
        self._checks: dict[str, Check] = {name: Check(False, "not yet") for name in conditions}
        self._progress = progress

    @property
    def names(self) -> tuple[str, ...]:
        return (*self._checks, "progress")

    @property
    def ready(self) -> bool:
        return all(check.ok for check in self.checks().values())

    @property
    def settled(self) -> bool:
        """Whether all but progress holds: before that, standing still is no fault."""
        return all(check.ok for check in self._checks.values())

    def set(self, name: Condition, ok: bool, reason: str = "") -> None:
        """Say whether a condition holds now; raise KeyError when this tier does not have it."""
        if name not in self._checks:
            raise KeyError(f"unknown condition {name!r}; this tier has {list(self._checks)}")
        self._checks[name] = Check(ok, reason or ("ok" if ok else "not yet"))

    def holds(self, name: str) -> bool:
        """Return whether one condition holds now."""
        return self.checks()[name].ok

    def checks(self) -> dict[str, Check]:
        """Return every condition with its reason."""
        return {**self._checks, "progress": self._progress.ready()}

    def live(self) -> Check:
        """Return whether the process should go on living."""
        return self._progress.live()


class HealthServer:
    """Serves the three paths, GET and HEAD only, and 404 for all else."""

    def __init__(
        self, registry: CollectorRegistry, readiness: Readiness, host: str, port: int
    ) -> None:
        """``port`` 0 takes a free one: see ``port`` after start."""
        self._registry, self._readiness = registry, readiness
        self.host, self.port = host, port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; raise OSError when the address cannot be had."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError:
            await self.stop()
            raise
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; harmless when not started."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _live(self, _: web.Request) -> web.Response:
        check = self._readiness.live()
        return _json({"live": check.ok, "reason": check.reason}, check.ok)

    async def _ready(self, _: web.Request) -> web.Response:
        checks = self._readiness.checks()
        ready = all(check.ok for check in checks.values())
        body = {"ready": ready, "checks": {name: asdict(c) for name, c in checks.items()}}
        return _json(body, ready)


@asynccontextmanager
async def serving(
    registry: CollectorRegistry, readiness: Readiness, host: str, port: int
) -> AsyncIterator[None]:
    """Serve as long as this is open, with ``port`` 0 nothing; raises CannotListen."""
    if not port:
        yield
        return
    server = HealthServer(registry, readiness, host, port)
    try:
        await server.start()
    except OSError as error:
        raise CannotListen(
            f"metrics and health cannot listen on {host}:{port} "
            f"(settings metrics_host, metrics_port): {error.strerror or error}"
        ) from None
    try:
        yield
    finally:
        await server.stop()


def _json(body: object, ok: bool) -> web.Response:
    return web.Response(
        text=json.dumps(body), status=200 if ok else 503, content_type="application/json"
    )
