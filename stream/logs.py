"""Logging for people (console) or machines (one JSON object per line), to standard error.

Messages are ``what happened: key=value key=value``. Rates belong in metrics: no line per event.
No line holds a payload or says who a user is: nothing of the kind is logged, and of errors whose
text may quote what they were given (a KeyError is the key) only kind and place are told.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from copy import copy
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Literal, TypeGuard

import msgspec

#: Loggers of the libraries: below these levels they tell of every fetch, write and heartbeat.
QUIET: dict[str, int] = {
    "aiokafka": logging.WARNING,
    "asyncio": logging.WARNING,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "opentelemetry": logging.WARNING,
    "httpx": logging.WARNING,
    "urllib3": logging.WARNING,
    "filelock": logging.WARNING,
}
OURS = ("stream", "models")
#: The Kafka client tells of every attempt to reach a broker that is away, hundreds a second.
REPEATING = "aiokafka"
REPEATS_EVERY_S = 10.0


#: What a message says of these as ``name=value`` is a field of its own in JSON.
_STORY = re.compile(
    r"(?<!\S)(topic|partition|offset|stage|reason|group|n_batch)=([^\s,;]*[^\s,;:])"
)
#: Of whose errors the texts are known to quote nothing, whatever they are derived from.
_OWN = ("stream", "models", "aiokafka")
#: Errors whose text may be, or hold, what they were given.
_QUOTING = (LookupError, ValueError, AssertionError, msgspec.MsgspecError)


def quotes(error: BaseException) -> bool:
    """True for an error whose text may quote an event."""
    return isinstance(error, _QUOTING) and type(error).__module__.split(".")[0] not in _OWN


class _Unquoted:
    """Stands for an error in a message."""

    def __init__(self, error: BaseException) -> None:
        self._name = type(error).__name__

    def __repr__(self) -> str:
        return f"{self._name}(...)"


class _Private(logging.Formatter):
    """Tells errors as said above, the ones they came from included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        # Faust tells of a crash by ``%r`` of the error. A copy: the record is others' too.
        if isinstance(record.args, tuple) and any(map(_is_quoting, record.args)):
            record = copy(record)
            args = record.args
            assert isinstance(args, tuple)
            record.args = tuple(_Unquoted(a) if _is_quoting(a) else a for a in args)
        return self._line(record)

    def _line(self, record: logging.LogRecord) -> str:
        return super().format(record)

    def formatException(self, ei: Any) -> str:
        """Return the frames of an error, and its text where it quotes nothing."""
        error, parts = ei[1], list[str]()
        while error is not None:
            text = "" if quotes(error) else f": {error}"
            frames = "".join(traceback.format_tb(error.__traceback__))
            parts.insert(0, f"{frames}{type(error).__name__}{text}")
            hidden = None if error.__suppress_context__ else error.__context__
            error = error.__cause__ or hidden
        return "\nwhich led to\n".join(parts)


def _is_quoting(value: object) -> TypeGuard[BaseException]:
    return isinstance(value, BaseException) and quotes(value)


class JsonLines(_Private):
    """One JSON object per record: time (UTC), level, logger, message; topic, partition, offset and
    the like where the message tells them; and error if there is one."""

    def _line(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _STORY.findall(record.getMessage()):
            fields.setdefault(name, int(value) if value.isdecimal() and len(value) < 19 else value)
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class Console(_Private):
    """Local time, level, logger, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")


def setup_logging(
    level: str = "info", style: Literal["console", "json"] = "console", tier: str = ""
) -> logging.Handler:
    """Send every record of at least ``level`` to one handler, which is returned.

    Call it once per process and give Faust's worker ``override_logging=False``. With ``tier``,
    the logger's name shows which of the processes on one console speaks.
    """
    threshold = getattr(logging, level.upper())
    handler = logging.StreamHandler()
    handler.setLevel(threshold)
    handler.setFormatter(JsonLines() if style == "json" else Console())
    handler.addFilter(_Repeats())
    if tier:
        handler.addFilter(_Prefix(tier))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    # Set on each by name: Faust's spinner can put the root logger at DEBUG, and then every
    # library pays for records that nobody reads.
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(max(threshold, quiet))
    for name in OURS:
        logging.getLogger(name).setLevel(threshold)
    return handler


def tell_uncaught(
    kind: type[BaseException], error: BaseException, at: TracebackType | None
) -> None:
    """Log what ends the process, in place of Python's own words, which quote: a sys.excepthook."""
    logging.getLogger(OURS[0]).critical("ended by an error", exc_info=(kind, error, at))


class _Repeats(logging.Filter):
    """Lets one of the client's equal messages through in ten seconds, with the number of others."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(REPEATING) or record.levelno < logging.WARNING:
            return True
        # Before its values are put in: what differs is the node, or how far the connection came.
        what = record.name, record.msg
        told_s, n_left_out = self._told.get(what, (-REPEATS_EVERY_S, 0))
        if record.created - told_s < REPEATS_EVERY_S:
            self._told[what] = told_s, n_left_out + 1
            return False
        if n_left_out:
            record.msg = f"{record.msg} ({n_left_out} more like this before)"
        self._told[what] = record.created, 0
        return True


class _Prefix(logging.Filter):
    def __init__(self, tier: str) -> None:
        super().__init__()
        self._tier = f"{tier}/"

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self._tier):
            record.name = self._tier + record.name
        return True
