from __future__ import annotations

import hashlib
import logging
from typing import Any

import pytest
from builders import NOW_MS, interaction, message
from fakes import Outbox
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stream.core.events import BadEvent, parse_interaction
from stream.dead_letters import (
    DeadLetters,
    DeadLetterStorm,
    Failure,
    StormGauge,
    describe,
    reason_of,
)
from stream.delivery import DeliveryFailed, Output, SourceMessage
from stream.messages import BadDerived
from stream.redrive import DeadLetter, Selection
from stream.schemas import schema_of

BAD = BadEvent("Expected `str`, got `int` - at `$.user_id`")


class Counts:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []

    def __call__(self, topic: str, reason: str, n: int) -> None:
        self.seen.append((topic, reason, n))


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def dead_letters(outbox: Outbox, counts: Counts) -> DeadLetters:
    return DeadLetters(outbox, "0.1.0", counts)


def letter_of(output: Output, offset: int = 0) -> DeadLetter:
    """The dead letter as it would be read back."""
    return DeadLetter(0, offset, NOW_MS, output.key, output.value, output.headers)


async def test_a_dead_letter_keeps_the_bytes_and_says_why(
    dead_letters: DeadLetters, outbox: Outbox, counts: Counts
):
    poison = message(
        "clickstream", b"\xff{not json", 41, partition=2, headers=(("trace", b"\x00\x01"),)
    )
    await dead_letters.send(poison, BAD, "parse")
    [sent] = outbox.of("dead-letters")
    assert (sent.key, sent.value) == (b"u1", b"\xff{not json")
    assert dict(sent.headers) == {
        "trace": b"\x00\x01",
        "dlq.original.topic": b"clickstream",
        "dlq.original.partition": b"2",
        "dlq.original.offset": b"41",
        "dlq.original.timestamp": str(NOW_MS).encode(),
        "dlq.error.class": b"BadEvent",
        "dlq.error.message": b"Expected `str`, got `int` - at `$.user_id`",
        "dlq.stage": b"parse",
        "dlq.attempts": b"1",
        "dlq.app.version": b"0.1.0",
    }
    assert counts.seen == [("clickstream", "bad_event", 1)]


async def test_its_headers_are_those_of_the_schema(dead_letters: DeadLetters, outbox: Outbox):
    await dead_letters.send(message("searches", None), BAD, "parse")
    [sent] = outbox.sent
    headers = {name: value.decode() for name, value in sent.headers}
    validator = Draft202012Validator(schema_of("dead-letters"))
    validator.validate({"key": "dTE=", "value": None, "headers": headers})
    assert set(headers) <= set(schema_of("dead-letters")["properties"]["headers"]["properties"])


async def test_a_batch_is_one_send_counted_by_topic_and_reason(
    dead_letters: DeadLetters, outbox: Outbox, counts: Counts
):
    await dead_letters.send_all(
        [
            Failure(message("clickstream", b"1", 1), BAD, "parse"),
            Failure(message("reviews", b"2", 2), KeyError("u1"), "fold"),
            Failure(message("clickstream", b"3", 3), BAD, "parse"),
        ]
    )
    assert [output.value for output in outbox.sent] == [b"1", b"2", b"3"]
    assert counts.seen == [("clickstream", "bad_event", 2), ("reviews", "bug", 1)]


async def test_nothing_failed_is_nothing_sent(
    dead_letters: DeadLetters, outbox: Outbox, counts: Counts
):
    await dead_letters.send_all([])
    assert (outbox.sent, counts.seen) == ([], [])


async def test_what_the_broker_refuses_is_not_counted_as_kept(counts: Counts):
    class Refusing(Outbox):
        async def send(self, outputs: Any) -> list[int]:
            raise DeliveryFailed("dead-letters: not leader")

    with pytest.raises(DeliveryFailed):
        await DeadLetters(Refusing(), "0", counts).send(message("reviews", b""), BAD, "parse")
    assert counts.seen == []


async def test_a_bug_is_logged_with_its_place_and_without_the_event(
    dead_letters: DeadLetters, outbox: Outbox, caplog: pytest.LogCaptureFixture
):
    def look_up(user_id: str) -> None:
        raise KeyError(user_id)

    shopper = message("clickstream", interaction(user_id="alice@example.org")).key or b""
    try:
        look_up(shopper.decode())
    except KeyError as error:
        await dead_letters.send(message("clickstream", b"{}", 5), error, "fold")
    [sent] = outbox.sent
    text = dict(sent.headers)["dlq.error.message"].decode()
    assert text.startswith("unexpected error in look_up, test_dead_letters.py:")
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "offset=5" in record.getMessage()
    assert "raise KeyError(user_id)" in record.getMessage()
    assert "alice@" not in text + record.getMessage()


async def test_a_poisoned_batch_is_one_log_line(
    dead_letters: DeadLetters, caplog: pytest.LogCaptureFixture
):
    await dead_letters.send_all(
        [Failure(message("clickstream", b"", n), BAD, "parse") for n in range(500)]
    )
    assert len(caplog.records) == 1
    assert "n_batch=500" in caplog.text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BAD, "bad_event"),
        (BadDerived("of another encoder"), "bad_derived"),
        (DeliveryFailed("x"), "refused"),
        (ValueError("x"), "bug"),
        (ZeroDivisionError(), "bug"),
    ],
)
def test_errors_are_counted_under_few_reasons(error: Exception, reason: str):
    assert reason_of(error) == reason


def test_an_error_that_was_never_raised_has_a_description():
    assert describe(ValueError("alice")) == "unexpected error"


def test_a_long_reason_is_cut():
    assert len(describe(BadEvent("x" * 10_000))) == 500


# --- too big -------------------------------------------------------------------------------------


def size(output: Output) -> int:
    headers = sum(len(name.encode()) + len(value) for name, value in output.headers)
    return len(output.key or b"") + len(output.value or b"") + headers


async def test_a_message_too_big_for_the_broker_is_cut_and_says_so(
    dead_letters: DeadLetters, outbox: Outbox
):
    value = bytes(range(256)) * 8_000
    await dead_letters.send(message("reviews", value), BAD, "parse")
    [sent] = outbox.sent
    assert 800_000 < size(sent) < 950_000
    assert sent.value == value[: len(sent.value or b"")]
    digest = hashlib.sha256(value).hexdigest()
    assert (
        dict(sent.headers)["dlq.truncated"].decode() == f"sha256={digest};bytes=2048000;cut=value"
    )


async def test_a_message_without_key_and_value_is_sent_in_a_way_the_client_can(
    dead_letters: DeadLetters, outbox: Outbox
):
    await dead_letters.send(SourceMessage("clickstream", 0, 0, NOW_MS, None, None), BAD, "parse")
    [sent] = outbox.sent
    assert (sent.key, sent.value) == (None, b"")
    assert letter_of(sent).truncated


@given(
    st.integers(0, 4_000).map(lambda n: b"k" * n),
    st.integers(0, 4_000).map(lambda n: b"v" * n),
    st.lists(st.tuples(st.just("h"), st.integers(0, 900).map(lambda n: b"x" * n)), max_size=6),
)
def test_whatever_comes_fits_the_broker(key: bytes, value: bytes, headers: Any):
    letters = DeadLetters(Outbox(), "0", Counts(), max_bytes=1000)
    big = SourceMessage("reviews", 0, 0, NOW_MS, key, value, tuple(headers))
    sent = letters.output_of(Failure(big, BAD, "parse"))
    own = sum(len(n) + len(v) for n, v in sent.headers if n.startswith("dlq."))
    assert size(sent) - own <= 1000
    whole = sent.key == key and sent.value == value and sent.headers[: len(headers)] == (*headers,)
    assert whole == ("dlq.truncated" not in dict(sent.headers))


# --- redriven ------------------------------------------------------------------------------------


def test_a_redriven_message_is_the_original_and_counts_its_attempts():
    letters = DeadLetters(Outbox(), "0", Counts())
    first = message("clickstream", b"\xff", 7, headers=(("trace", b"t"),))
    copy = letter_of(letters.output_of(Failure(first, BAD, "parse"))).original()
    assert (copy.topic, copy.key, copy.value, copy.partition) == (
        "clickstream",
        b"u1",
        b"\xff",
        None,
    )
    assert copy.headers == (("trace", b"t"), ("dlq.attempts", b"2"))
    again = message("clickstream", copy.value, 99, headers=copy.headers)
    twice = letters.output_of(Failure(again, BAD, "parse"))
    assert dict(twice.headers)["dlq.attempts"] == b"2"
    assert dict(twice.headers)["dlq.original.offset"] == b"99"
    assert [name for name, _ in twice.headers].count("dlq.attempts") == 1


def test_a_derived_message_goes_back_to_its_partition():
    pairs = message("item-pairs", b"\x80", partition=3)
    letters = DeadLetters(Outbox(), "0", Counts())
    assert letter_of(letters.output_of(Failure(pairs, BAD, "pairs"))).original().partition == 3


@pytest.mark.parametrize(
    ("selection", "fits"),
    [
        (Selection(), True),
        (Selection(topic="clickstream"), True),
        (Selection(topic="reviews"), False),
        (Selection(reason="badevent"), True),
        (Selection(reason="$.user_id"), True),
        (Selection(reason="KeyError"), False),
        (Selection(stage="parse"), True),
        (Selection(stage="fold"), False),
        (Selection(partition=0, first=5, last=5), True),
        (Selection(first=6), False),
        (Selection(last=4), False),
        (Selection(partition=1), False),
    ],
)
def test_a_selection_takes_what_fits_every_field(selection: Selection, fits: bool):
    output = DeadLetters(Outbox(), "0", Counts()).output_of(
        Failure(message("clickstream", b""), BAD, "parse")
    )
    assert selection.fits(letter_of(output, offset=5)) is fits


def test_a_letter_written_by_someone_else_can_be_listed():
    letter = DeadLetter(0, 0, NOW_MS, None, None, (("dlq.attempts", b"\xffmany"),))
    assert (letter.topic, letter.attempts, letter.truncated) == ("", 1, False)
    assert letter.fact("dlq.stage") == ""


# --- storms --------------------------------------------------------------------------------------


def test_a_storm_is_called_when_most_of_a_window_fails():
    gauge = StormGauge(window=1000, limit=0.5)
    gauge.record(600, 600)
    gauge.check()
    gauge.record(400, 0)
    assert (gauge.share, gauge.storm) == (0.6, True)
    with pytest.raises(DeadLetterStorm, match="600 of the last 1000 events"):
        gauge.check()


def test_a_few_bad_events_at_the_start_are_no_storm():
    gauge = StormGauge(window=1000)
    gauge.record(20, 20)
    assert gauge.share == 1.0
    assert not gauge.storm


def test_a_storm_passes_once_the_window_has_moved_on():
    gauge = StormGauge(window=100, limit=0.5)
    gauge.record(100, 100)
    assert gauge.storm
    for _ in range(10):
        gauge.record(10, 0)
    assert (gauge.share, gauge.storm) == (0.0, False)


def test_a_share_of_exactly_the_limit_is_allowed():
    gauge = StormGauge(window=10, limit=0.5)
    gauge.record(10, 5)
    gauge.check()


@given(st.lists(st.integers(0, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))))
def test_the_share_is_that_of_the_last_batches_that_fill_the_window(batches: list[Any]):
    gauge = StormGauge(window=50)
    for batch in batches:
        gauge.record(*batch)
    events = failed = 0
    for n_events, n_failed in reversed(batches):
        if events >= 50:
            break
        events, failed = events + n_events, failed + n_failed
    assert gauge.share == pytest.approx(failed / events if events else 0.0)


@pytest.mark.parametrize("arguments", [(0, 0.5), (10, 0.0), (10, 1.5)])
def test_a_gauge_refuses_nonsense(arguments: Any):
    with pytest.raises(ValueError, match="expected window"):
        StormGauge(*arguments)


def test_more_failures_than_events_are_refused():
    with pytest.raises(ValueError, match="n_failed"):
        StormGauge().record(1, 2)


def test_the_parsers_own_errors_reach_the_letter_without_values():
    with pytest.raises(BadEvent) as caught:
        parse_interaction(b'{"event_id":"e","user_id":"alice","item_id":"i","type":"alice"}')
    letters = DeadLetters(Outbox(), "0", Counts())
    sent = letters.output_of(Failure(message("clickstream", interaction()), caught.value, "parse"))
    assert dict(sent.headers)["dlq.error.message"] == b"Invalid enum value - at `$.type`"
