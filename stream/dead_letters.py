"""Events given up on: kept as they came, with the reason in the headers; and when to stop.

A dead letter is the message byte for byte. Only a message too big for the broker is cut, and says
so (``dlq.truncated``): losing its tail is better than a worker that can never go on.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.errors import MessageSizeTooLargeError

from stream.core.events import BadEvent
from stream.delivery import DeliveryFailed, Headers, Output, Sender, SourceMessage
from stream.messages import BadDerived
from stream.topics import DEAD_LETTERS

if TYPE_CHECKING:
    from stream.metrics import DeadLetterReason

log = logging.getLogger(__name__)

PREFIX = "dlq."
TOPIC = "dlq.original.topic"
PARTITION = "dlq.original.partition"
OFFSET = "dlq.original.offset"
TIMESTAMP = "dlq.original.timestamp"
ERROR_CLASS = "dlq.error.class"
ERROR_MESSAGE = "dlq.error.message"
STAGE = "dlq.stage"
ATTEMPTS = "dlq.attempts"
APP_VERSION = "dlq.app.version"
TRUNCATED = "dlq.truncated"

#: Below Kafka's default limit of 1 MiB a message, with room for the record's own framing.
MAX_BYTES = 900_000
MAX_REASON = 500

#: Called with source topic, reason and number of dead letters, once they have arrived.
OnDeadLetter = Callable[[str, "DeadLetterReason", int], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that was given up on, why and where; ``attempts`` made in this process."""

    message: SourceMessage
    error: Exception
    stage: str
    attempts: int = 1


class DeadLetters:
    """Sends failures to ``dead-letters`` and counts them."""

    def __init__(
        self,
        sender: Sender,
        app_version: str,
        on_dead_letter: OnDeadLetter,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._sender = sender
        self._app_version = app_version
        self._on_dead_letter = on_dead_letter
        self._max_bytes = max_bytes

    async def send(
        self, message: SourceMessage, error: Exception, stage: str, attempts: int = 1
    ) -> None:
        """Return once the broker has the dead letter; raise DeliveryFailed if it refuses."""
        await self.send_all([Failure(message, error, stage, attempts)])

    async def send_all(self, failures: Sequence[Failure]) -> None:
        """Return once the broker has every dead letter; raise DeliveryFailed if it refuses."""
        if failures:
            await self._sender.send([self.output_of(failure) for failure in failures])
            self.count(failures)

    def count(self, failures: Sequence[Failure]) -> None:
        """Log and count what has been sent; for those who send the outputs themselves."""
        kinds = Counter((f.message.topic, reason_of(f.error)) for f in failures)
        for (topic, reason), n in kinds.items():
            self._on_dead_letter(topic, reason, n)
        # One line per kind: a poisoned topic must not fill the disk with log lines as well.
        for failure in {(f.stage, type(f.error)): f for f in reversed(failures)}.values():
            _log(failure, len(failures))

    def output_of(self, failure: Failure) -> Output:
        """Return the dead letter; the same failure always gives the same bytes."""
        message = failure.message
        key, value, headers, cut = _fitted(message, self._max_bytes)
        facts: list[tuple[str, str]] = [
            (TOPIC, message.topic),
            (PARTITION, str(message.partition)),
            (OFFSET, str(message.offset)),
            (TIMESTAMP, str(message.timestamp_ms)),
            (ERROR_CLASS, type(failure.error).__name__),
            (ERROR_MESSAGE, describe(failure.error)),
            (STAGE, failure.stage),
            (ATTEMPTS, str(attempt_of(message.headers) + failure.attempts - 1)),
            (APP_VERSION, self._app_version),
        ]
        if cut:
            facts.append((TRUNCATED, cut))
        added = tuple((name, text.encode()) for name, text in facts)
        return Output(DEAD_LETTERS.name, key, value, headers=(*headers, *added))


def reason_of(error: Exception) -> DeadLetterReason:
    """Return the reason under which an error is counted."""
    match error:
        case BadEvent():
            return "bad_event"
        case BadDerived():
            return "bad_derived"
        case MessageSizeTooLargeError():
            return "too_large"
        case DeliveryFailed():
            return "refused"
        case _:
            return "bug"


def describe(error: Exception) -> str:
    """Return the reason as text without personal data.

    Only the errors made for it speak for themselves: the text of any other may quote the event
    (a KeyError is the key), so its place in the code stands for it.
    """
    if isinstance(error, BadEvent | BadDerived | DeliveryFailed):
        return str(error)[:MAX_REASON]
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "unexpected error"
    last = frames[-1]
    return f"unexpected error in {last.name}, {last.filename.rsplit('/', 1)[-1]}:{last.lineno}"


def without_dlq(headers: Headers) -> Headers:
    """Return the headers that the message had before it was given up on."""
    return tuple((name, value) for name, value in headers if not name.startswith(PREFIX))


def attempt_of(headers: Headers) -> int:
    """Return which attempt a message is at: 1, or what a redriven one says."""
    value = dict(headers).get(ATTEMPTS) or b""
    return max(1, int(value)) if value.isdigit() and len(value) < 10 else 1


def _fitted(
    message: SourceMessage, max_bytes: int
) -> tuple[bytes | None, bytes | None, Headers, str]:
    """Return key, value and headers that fit, and what was cut (empty if nothing)."""
    headers = without_dlq(message.headers)
    key, value = message.key, message.value
    if key is None and value is None:
        # The client sends no message without both.
        return None, b"", headers, "bytes=0;cut=null"
    if _size(key, value, headers) <= max_bytes:
        return key, value, headers, ""
    # The key first, since it orders and finds the message, then headers, then the value.
    cut = []
    if key is not None and len(key) > max_bytes // 4:
        key = key[: max_bytes // 4]
        cut.append("key")
    kept: Headers = ()
    for header in headers:
        if _size(None, None, (*kept, header)) <= max_bytes // 4:
            kept = (*kept, header)
    if kept != headers:
        cut.append("headers")
    room = max_bytes - _size(key, None, kept)
    digest = hashlib.sha256(value or b"").hexdigest()
    length = len(value or b"")
    if value is not None and length > room:
        value = value[:room]
        cut.append("value")
    return key, value, kept, f"sha256={digest};bytes={length};cut={','.join(cut)}"


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    named = sum(len(name.encode()) + len(content or b"") + 10 for name, content in headers)
    return len(key or b"") + len(value or b"") + named


def _log(failure: Failure, n: int) -> None:
    message, error = failure.message, failure.error
    story = (
        "dead letter: reason=%s stage=%s topic=%s partition=%s offset=%s n_batch=%s: %s%s",
        reason := reason_of(error),
        failure.stage,
        message.topic,
        message.partition,
        message.offset,
        n,
        describe(error),
        # Frames only: the last line of a traceback is the error's text, which may quote the event.
        "\n" + "".join(traceback.format_tb(error.__traceback__)) if reason == "bug" else "",
    )
    log.log(logging.ERROR if reason == "bug" else logging.WARNING, *story)


class DeadLetterStorm(RuntimeError):
    """Too large a share of recent events fails: more likely our fault or a producer's than theirs.

    Stop and let lag grow, rather than drain a topic into ``dead-letters``.
    """


class StormGauge:
    """The share of dead letters among the last ``window`` events."""

    def __init__(self, window: int = 1000, limit: float = 0.5) -> None:
        if window < 1 or not 0 < limit <= 1:
            raise ValueError(f"expected window >= 1 and 0 < limit <= 1, got {window}, {limit}")
        self._window = window
        self._limit = limit
        self._batches: deque[tuple[int, int]] = deque()
        self._events = 0
        self._failed = 0

    @property
    def share(self) -> float:
        """Failures per event over the window, 0 while there were no events."""
        return self._failed / self._events if self._events else 0.0

    @property
    def storm(self) -> bool:
        """True once a full window has failed too often; a few bad events at first are no storm."""
        return self._events >= self._window and self.share > self._limit

    def record(self, n_events: int, n_failed: int) -> None:
        """Add a micro-batch, of which ``n_failed`` became dead letters."""
        if not 0 <= n_failed <= n_events:
            raise ValueError(f"expected 0 <= n_failed <= n_events, got {n_failed}, {n_events}")
        self._batches.append((n_events, n_failed))
        self._events += n_events
        self._failed += n_failed
        # Whole batches leave, once what remains fills the window without them.
        while self._events - self._batches[0][0] >= self._window:
            events, failed = self._batches.popleft()
            self._events -= events
            self._failed -= failed

    def check(self) -> None:
        """Raise DeadLetterStorm when too many of the recent events failed."""
        if self.storm:
            raise DeadLetterStorm(
                f"{self._failed} of the last {self._events} events became dead letters, "
                f"more than the allowed share of {self._limit:g}"
            )
