"""The other side of `bench ingest`: a Faust app as its manual has it, one count a user in a table.

Started as ``python -m stream.bench.faust_counter``, with the settings of a worker.
"""

from __future__ import annotations

from typing import Any

import faust
from faust.worker import Worker
from yarl import URL

from stream.engine.app import credentials
from stream.settings import Settings, load_settings
from stream.topics import CLICKSTREAM


def group_of(settings: Settings) -> str:
    """Return the app's consumer group."""
    return f"{settings.topic_prefix}counter"


def counting_app(settings: Settings) -> faust.App:
    """Return the app: everything is Faust's default but where the broker and the store are."""
    app = faust.App(
        group_of(settings),
        broker=[URL(f"kafka://{server.strip()}") for server in settings.broker.split(",")],
        broker_credentials=credentials(settings),
        store=f"{settings.store}://",
        datadir=settings.state_dir,
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication_factor,
        web_enabled=False,
    )
    counts: Any = app.Table("counts", default=int, partitions=settings.partitions)

    async def count(events: Any) -> None:
        async for event in events:
            counts[event["user_id"]] += 1

    app.agent(app.topic(settings.topic_prefix + CLICKSTREAM.name))(count)
    return app


if __name__ == "__main__":
    Worker(counting_app(load_settings()), loglevel="info").execute_from_commandline()
