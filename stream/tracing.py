"""Tracing: from the trace context in an event's headers (W3C) to that in the outputs it causes.

An output's context is a child of its event's, whose span id follows from the event's and the
output's own id: whatever is sent again after a crash carries the same bytes. An event without a
context causes outputs without one.

It is off by default, and then costs a comparison a batch. What is remembered of an event lies in
memory: a list that is put off beyond a restart has no context.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

import msgspec
from cachetools import LRUCache
from msgspec import Struct

from stream.agents.reports import BatchReport, Report
from stream.core.drafts import UserDraft
from stream.core.fold import Sourced
from stream.core.intake import Taken
from stream.delivery import Headers, SourceMessage
from stream.engine.commits import Effect, PartitionCommit
from stream.topics import CHURN_RISK, RECOMMENDATIONS, SEARCH_RESULTS

PARENT, STATE = "traceparent", "tracestate"
#: Of a version that is not known yet, only what the known one begins with is read.
_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NOTHING = re.compile("0+")
_SAMPLED = 1
#: As much as everybody must carry; more could make an output larger than a broker takes.
_STATE_BYTES = 512
#: Events remembered: at a thousand a second, those of the last minute or so.
_REMEMBERED = 100_000
#: OpenTelemetry keeps no more links of a span.
_LINKS = 128
_PUBLISHED = frozenset((RECOMMENDATIONS.name, CHURN_RISK.name, SEARCH_RESULTS.name))


class TraceContext(NamedTuple):
    """Whose part something is: trace and span in hex, and what came beside them."""

    trace_id: str
    span_id: str
    flags: int
    state: bytes = b""

    @property
    def sampled(self) -> bool:
        return bool(self.flags & _SAMPLED)

    def child(self, cause: str) -> TraceContext:
        """Return the context of what ``cause`` names, always the same."""
        text = f"{self.trace_id}{self.span_id}{cause}"
        return self._replace(span_id=hashlib.sha256(text.encode()).hexdigest()[:16])

    def headers(self) -> Headers:
        parent = f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}".encode()
        return ((PARENT, parent), *(((STATE, self.state),) if self.state else ()))


def context_of(headers: Headers) -> TraceContext | None:
    """Return the context that headers carry, None where there is none or none to be read."""
    found = {name.lower(): value for name, value in headers if name.lower() in (PARENT, STATE)}
    read = _PARENT.fullmatch(found.get(PARENT) or b"")
    if read is None or (read[1] == b"00" and read[5]):
        return None
    trace_id, span_id = read[2].decode(), read[3].decode()
    if _NOTHING.fullmatch(trace_id) or _NOTHING.fullmatch(span_id):
        return None
    state = found.get(STATE) or b""
    if len(state) > _STATE_BYTES:
        state = b""
    return TraceContext(trace_id, span_id, int(read[4], 16), state)


class Span(NamedTuple):
    """A span that is over; times in epoch nanoseconds, ``span_id`` empty where any will do."""

    name: str
    start_ns: int
    end_ns: int
    parent: TraceContext | None = None
    span_id: str = ""
    links: Sequence[TraceContext] = ()
    parts: Sequence[tuple[str, int, int]] = ()


class _Cause(Struct):
    event_id: str | None = None


class _Facts(Struct):
    """What an output says of the event that caused it."""

    trigger: _Cause | None = None
    search_event_id: str | None = None


_facts = msgspec.json.Decoder(_Facts)


class Export(Protocol):
    """Where spans go; a list's ``append`` in tests."""

    def __call__(self, span: Span) -> None: ...


class Tracing:
    """What one stage hears of contexts, and passes on."""

    def __init__(
        self, export: Export, stage: str, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._export = export
        self._stage = stage
        self._clock_ns = clock_ns
        self._heard: LRUCache[tuple[bytes, str], TraceContext] = LRUCache(_REMEMBERED)
        self._links: list[TraceContext] = []
        self._outputs: list[tuple[str, TraceContext, TraceContext]] = []

    def hear(self, drafts: Iterable[UserDraft]) -> None:
        """Remember the contexts of a batch's events, by user and event id."""
        for taken in chain.from_iterable(draft.taken for draft in drafts):
            context = context_of(taken.message.headers) if taken.message.headers else None
            event_id = _event_id(taken)
            if context is not None and event_id:
                self._heard[taken.user_id.encode(), event_id] = context
                self._links.append(context)

    def reporting(self, report: Report) -> Report:
        """Return what tells of spans where a batch is reported: once it has been committed."""

        def both(batch: BatchReport) -> None:
            report(batch)
            self._done(batch)

        return both

    def mark(self, commits: Iterable[PartitionCommit]) -> None:
        """Give the outputs of a commit the contexts of their events."""
        if not self._heard:
            return
        for commit in commits:
            commit.effects = [self._marked(effect) for effect in commit.effects]

    def _marked(self, effect: Effect) -> Effect:
        if effect.topic not in _PUBLISHED or effect.value is None or effect.key is None:
            return effect
        facts = _facts.decode(effect.value)
        event_id = facts.trigger.event_id if facts.trigger else facts.search_event_id
        context = self._heard.get((effect.key, event_id or ""))
        if context is None:
            return effect
        child = context.child(effect.effect_id)
        self._outputs.append((effect.topic, context, child))
        return msgspec.structs.replace(effect, headers=(*effect.headers, *child.headers()))

    def carried(self, message: SourceMessage, topic: str) -> Headers:
        """Return the headers of the one thing that a message becomes in another topic."""
        context = context_of(message.headers)
        if context is None:
            return ()
        child = context.child(f"{topic}/{message.topic}/{message.partition}/{message.offset}")
        self._links.append(context)
        self._outputs.append((topic, context, child))
        return child.headers()

    def _done(self, report: BatchReport) -> None:
        links, outputs = self._links, self._outputs
        self._links, self._outputs = [], []
        kept = [context for context in links if context.sampled]
        end_ns = self._clock_ns()
        start_ns = end_ns - round(1e9 * report.seconds.get("batch", sum(report.seconds.values())))
        if kept:
            name = f"{self._stage} batch"
            parts = _in_turn(report, start_ns, end_ns)
            self._export(Span(name, start_ns, end_ns, links=kept[:_LINKS], parts=parts))
        for topic, parent, child in outputs:
            if parent.sampled:
                self._export(Span(f"publish {topic}", start_ns, end_ns, parent, child.span_id))


def _event_id(taken: Taken) -> str:
    content = taken.content
    return getattr(content.event, "event_id", "") if isinstance(content, Sourced) else ""


def _in_turn(report: BatchReport, start_ns: int, end_ns: int) -> list[tuple[str, int, int]]:
    """Return name, start and end of a batch's steps, as if each had begun where the last ended."""
    parts: list[tuple[str, int, int]] = []
    for name, seconds in report.seconds.items():
        if name != "batch":
            end = min(start_ns + round(1e9 * seconds), end_ns)
            parts.append((name, start_ns, end))
            start_ns = end
    return parts
