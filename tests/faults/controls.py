"""Controls: stream programs as they are commonly written, which the oracle must find guilty.

    python -m faults.controls naive|concurrent|exactly_once

Each counts acts per user, or (concurrent, which may not write a table) only answers them; each
answers every act with a message whose id is derived from the act's place.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import faust

Control = str
#: With a table to count in, and how Faust is told to run.
COUNTING: dict[Control, dict[str, Any]] = {
    "naive": {},
    "exactly_once": {"processing_guarantee": "exactly_once"},
}


def app_of(control: Control) -> faust.App:
    """Return the program; its topics and its folder come from the environment."""
    prefix = os.environ["PREFSTREAM_TOPIC_PREFIX"]
    app = faust.App(
        f"{prefix}{control}",
        broker=f"kafka://{os.environ['PREFSTREAM_BROKER']}",
        store="rocksdb://",
        datadir=os.environ["PREFSTREAM_STATE_DIR"],
        topic_partitions=2,
        topic_replication_factor=1,
        web_enabled=False,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.5,
        stream_wait_empty=False,
        **COUNTING.get(control, {}),
    )
    acts = app.topic(f"{prefix}clickstream", value_serializer="raw", key_serializer="raw")
    answers = app.topic(f"{prefix}recommendations", value_serializer="raw", key_serializer="raw")
    if control in COUNTING:
        _count(app, acts, answers)
    else:
        _answer_two_at_once(app, acts, answers)
    return app


def _count(app: faust.App, acts: Any, answers: Any) -> None:
    counts = app.Table("counts", default=int, partitions=2)

    @app.agent(acts)
    async def count(stream: Any) -> AsyncIterator[None]:
        async for event in stream.events():
            act = json.loads(event.value)
            if act["type"] != "impression":
                counts[act["user_id"]] += 1
            await answers.send(key=event.key, value=_answer(event, act))
            yield None


def _answer_two_at_once(app: faust.App, acts: Any, answers: Any) -> None:
    @app.agent(acts, concurrency=2)
    async def answer(stream: Any) -> AsyncIterator[None]:
        async for event in stream.events():
            act = json.loads(event.value)
            # Now and then one takes long, as with any call of a model.
            await asyncio.sleep(6.0 if hash_of(act["event_id"]) % 100 == 0 else 0.002)
            await answers.send(key=event.key, value=_answer(event, act))
            yield None


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _answer(event: Any, act: dict[str, Any]) -> bytes:
    place = "clickstream", event.message.partition, event.message.offset
    cause = "\x1f".join(("recommendation", *map(str, place)))
    answer = {
        "recommendation_id": hashlib.sha256(cause.encode()).hexdigest()[:32],
        "user_id": act["user_id"],
        "generated_ms": time.time_ns() // 1_000_000,
        "trigger": dict(zip(("topic", "partition", "offset"), place, strict=True)),
    }
    return json.dumps(answer).encode()


if __name__ == "__main__":
    app = app_of(sys.argv[1])
    sys.argv[1:] = ["worker", "--without-web", "--loglevel", "info"]
    app.main()
