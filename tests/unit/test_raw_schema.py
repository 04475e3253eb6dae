from __future__ import annotations

from pathlib import Path
from typing import Any

import faust
import pytest
from faust.types import TP, ConsumerMessage

from stream.engine.app import new_app
from stream.engine.schema import RawSchema
from stream.settings import load_settings


@pytest.mark.parametrize("value", [b"{}", b"", None])
@pytest.mark.parametrize("key", [b"u1", None])
async def test_an_event_is_the_one_that_faust_makes(
    key: bytes | None, value: bytes | None, tmp_path: Path
) -> None:
    app = new_app(load_settings(state_dir=tmp_path), "preference")
    message = ConsumerMessage(
        "searches", 0, 7, 1.5, 0, [("h", b"1")], key, value, None, tp=TP("searches", 0)
    )
    fausts: Any = faust.Schema(
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        allow_empty=True,
    )
    expected = await fausts.compile(app)(message, propagate=True)
    event = await RawSchema().compile(app)(message, propagate=True)
    assert type(event) is type(expected)
    assert (event.app, event.key, event.value, event.message) == (app, key, value, message)
    assert (event.key, event.value, event.headers) == (
        expected.key,
        expected.value,
        expected.headers,
    )
