"""Logging for people (console) or machines (one JSON object per line), to standard error.

Messages are ``what happened: key=value key=value``. Rates belong in metrics: no line per event.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Literal

#: Loggers of the libraries: below these levels they tell of every fetch, write and heartbeat.
QUIET: dict[str, int] = {
    "aiokafka": logging.WARNING,
    "asyncio": logging.WARNING,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "httpx": logging.WARNING,
    "urllib3": logging.WARNING,
    "filelock": logging.WARNING,
}
OURS = ("stream", "models")
#: The Kafka client tells of every attempt to reach a broker that is away, hundreds a second.
REPEATING = "aiokafka"
REPEATS_EVERY_S = 10.0


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, and error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a message of several lines stays one."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class Console(logging.Formatter):
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
