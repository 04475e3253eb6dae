"""From the trace context of an event to that of what it causes, through the real stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import message, review, search
from fakes import HashEncoder, Killed, Outbox
from preference_stage import INTERVAL_MS, PreferenceStage, new_table

from stream.agents.encode import Encode
from stream.agents.failures import Failures
from stream.dead_letters import DeadLetters
from stream.delivery import Output, SourceMessage
from stream.tracing import Span, TraceContext, Tracing, context_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def traced(event: SourceMessage, number: int = 1, flags: int = 1) -> SourceMessage:
    headers = TraceContext(TRACE, f"{number:016x}", flags).headers()
    return msgspec.structs.replace(event, headers=headers)


def contexts(outputs: list[Output], topic: str) -> list[TraceContext | None]:
    return [context_of(o.headers) for o in outputs if o.topic == topic and o.value is not None]


class Traced:
    """A stage that traces, and its spans."""

    def __init__(self, folder: Path) -> None:
        self.spans: list[Span] = []
        self.stage = PreferenceStage(new_table(folder), Outbox())
        self.stage.stock()
        self.restart()

    def restart(self) -> None:
        self.stage.tracing = Tracing(self.spans.append, "preferences", lambda: 5 * 10**9)
        self.stage.build()


@pytest.fixture
async def shop(tmp_path: Path) -> Traced:
    shop = Traced(tmp_path)
    await shop.stage.start()
    return shop


async def test_what_an_act_causes_carries_its_trace(shop: Traced) -> None:
    sent = await shop.stage(traced(shop.stage.act("boots")))
    published = {topic: contexts(sent, topic) for topic in ("recommendations", "churn-risk")}
    ids = [context.span_id for found in published.values() for context in found if context]
    assert [len(found) for found in published.values()] == [1, 1]
    assert len(set(ids)) == 2
    assert {c.trace_id for found in published.values() for c in found if c} == {TRACE}
    batch, *outputs = shop.spans
    assert (batch.name, [link.span_id for link in batch.links]) == (
        "preferences batch",
        ["0" * 15 + "1"],
    )
    assert {name for name, *_ in batch.parts} >= {"fold", "recommend", "publish"}
    assert {span.name for span in outputs} == {"publish recommendations", "publish churn-risk"}
    assert {span.span_id for span in outputs} == set(ids)
    assert {span.parent.span_id for span in outputs if span.parent} == {"0" * 15 + "1"}


async def test_a_search_is_answered_within_its_trace(shop: Traced) -> None:
    sent = await shop.stage(traced(shop.stage.searched("tea")), shop.stage.act("lamp"))
    (answer,) = contexts(sent, "search-results")
    assert answer is not None
    assert answer.trace_id == TRACE


async def test_an_event_without_a_trace_causes_none(shop: Traced) -> None:
    sent = await shop.stage(shop.stage.act("boots"), traced(shop.stage.act("tea", user_id="u2")))
    by_user = {o.key: context_of(o.headers) for o in sent if o.topic == "recommendations"}
    assert by_user[b"u1"] is None
    assert by_user[b"u2"] is not None


async def test_a_dead_letter_keeps_the_trace_that_it_came_with(shop: Traced) -> None:
    sent = await shop.stage(traced(message("clickstream", b"{")))
    assert contexts(sent, "dead-letters") == [TraceContext(TRACE, f"{1:016x}", 1)]


async def test_a_list_that_is_put_off_carries_the_trace_of_its_cause(shop: Traced) -> None:
    await shop.stage(shop.stage.act("boots"))
    assert contexts(await shop.stage(traced(shop.stage.act("tea"))), "recommendations") == []
    (context,) = contexts(await shop.stage.due(INTERVAL_MS), "recommendations")
    assert context is not None
    assert context.trace_id == TRACE


async def test_what_is_sent_again_after_a_crash_is_the_same_to_the_byte(shop: Traced) -> None:
    stage = shop.stage
    event = traced(stage.act("boots"))
    published = ("recommendations", "churn-risk")
    whole = Traced(Path(stage.settings.state_dir) / "other")
    await whole.stage.start()
    n_sent = len(await whole.stage(event))
    seen: dict[str, set[Any]] = {}
    # Everything of the batch arrives but what it publishes; then what it publishes, and no more.
    stage.outbox.dies_after = n_sent - 1
    with pytest.raises(Killed):
        await stage(event)
    stage.outbox.dies_after = None
    shop.restart()
    await stage.start()
    await stage(event)
    for output in stage.outbox.sent:
        if output.topic in published:
            seen.setdefault(output.topic, set()).add((output.value, output.headers))
    assert {topic: len(found) for topic, found in seen.items()} == dict.fromkeys(published, 1)
    assert all(context_of(headers) for found in seen.values() for _, headers in found)


async def test_a_trace_that_is_not_kept_goes_on_without_spans(shop: Traced) -> None:
    sent = await shop.stage(traced(shop.stage.act("boots"), flags=0))
    (context,) = contexts(sent, "recommendations")
    assert context is not None
    assert context.flags == 0
    assert shop.spans == []


async def test_without_tracing_no_output_has_headers(stage: PreferenceStage) -> None:
    sent = await stage(traced(stage.act("boots")))
    assert [o.headers for o in sent if o.topic == "recommendations"] == [()]


@pytest.mark.parametrize("tracing", [True, False])
async def test_a_text_takes_its_trace_through_the_encoder(tracing: bool) -> None:
    spans: list[Span] = []
    outbox = Outbox()
    failures = Failures(DeadLetters(outbox, "0", lambda *_: None), "encode")
    heard = Tracing(spans.append, "encode") if tracing else None
    encode = Encode(HashEncoder(), HashEncoder(), outbox, failures, lambda _: None, tracing=heard)
    await encode.process(
        [traced(message("searches", search()), 1), message("reviews", review(), 1)]
    )
    first, second = (context_of(output.headers) for output in outbox.sent)
    assert second is None
    if tracing:
        expected = TraceContext(TRACE, f"{1:016x}", 1).child("embedded-texts/searches/0/0")
        assert first == expected
    else:
        assert first is None
