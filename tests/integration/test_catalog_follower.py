"""The catalogue's follower on both brokers: seldom asking without news, soon hearing of some."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import builders
import msgspec
import pytest

from models.catalogue import Catalogue
from stream.catalog import CatalogFollower, kafka_consumer
from stream.delivery import Output
from stream.kafka_client import KafkaSender
from stream.settings import Settings
from stream.topic_admin import create_topics
from stream.topics import ITEMS

DIM = 8


class Counted:
    """The follower's consumer, whose fetches are counted."""

    def __init__(self, settings: Settings) -> None:
        self.consumer: Any = kafka_consumer(settings)
        self.n_fetches = 0
        send = self.consumer._client.send

        async def counted(node_id: int, request: Any, **options: Any) -> Any:
            self.n_fetches += type(request).__name__.startswith("Fetch")
            return await send(node_id, request, **options)

        self.consumer._client.send = counted


@pytest.fixture
async def settings(broker, topic_prefix, tmp_path):
    settings = Settings(broker=broker, topic_prefix=topic_prefix, state_dir=tmp_path)
    await create_topics(settings)
    return settings


async def test_it_asks_seldom_without_news_and_soon_hears_of_some(settings):
    counted = Counted(settings)
    catalogue = Catalogue(DIM)
    follower = CatalogFollower(settings, catalogue, "e", make_consumer=lambda: counted.consumer)
    sender = KafkaSender(settings)
    await sender.start()
    await follower.start()
    try:
        await asyncio.wait_for(follower.caught_up(), 30)
        before = counted.n_fetches
        await asyncio.sleep(2)
        assert 1 <= counted.n_fetches - before <= 2 * 10

        value = msgspec.json.encode(builders.item(item_id="shoe"))
        await sender.send([Output(ITEMS.name, b"shoe", value)])
        sent = time.monotonic()
        while catalogue.row("shoe") < 0:
            assert time.monotonic() - sent < 2
            await asyncio.sleep(0.01)
    finally:
        await follower.stop()
        await sender.stop()
