"""A rest between the empty answers of a broker that does not make a consumer wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

#: An answer within this time was not waited for.
AT_ONCE_S = 0.1

Send = Callable[..., Awaitable[Any]]


def resting(send: Send, rest_s: float) -> Send:
    """Return a client's ``send`` that rests after a fetch answered empty and at once.

    Apache Kafka holds such a fetch until there is something or the longest wait is over, so it
    never comes to a rest there; the embedded broker does not, and would be asked again at once,
    for ever.
    """

    async def send_and_rest(node_id: int, request: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        started = loop.time()
        response = await send(node_id, request, **options)
        if loop.time() - started < AT_ONCE_S and is_empty_fetch(response):
            await asyncio.sleep(rest_s)
        return response

    return send_and_rest


def is_empty_fetch(response: Any) -> bool:
    """True for the answer to a fetch that holds neither a record nor an error."""
    if not type(response).__name__.startswith("FetchResponse"):
        return False
    return not any(
        error_code or message_set
        for _, partitions in response.topics
        for _, error_code, *_, message_set in partitions
    )
