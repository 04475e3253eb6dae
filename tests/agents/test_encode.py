"""The encode stage: items, searches, reviews, users -> item-embeddings, embedded-texts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from builders import NOW_MS, item, message, review, search, user
from fakes import HashEncoder, Outbox
from numpy.typing import NDArray

from models.encoder import EncoderUnavailable, Side
from models.sentiment import SentimentModel
from models.vector_cache import VectorCache
from stream.agents.encode import MAX_CHARS, MAX_EVENT_BYTES, Encode, item_text
from stream.agents.failures import Failures
from stream.agents.guard import Guard
from stream.agents.reports import BatchReport
from stream.dead_letters import DeadLetters, StormGauge
from stream.delivery import Output, SourceMessage
from stream.messages import (
    EmbeddedText,
    ItemEmbedding,
    SourcePlace,
    TextSentiment,
    read_embedded_text,
    read_item_embedding,
    vector_of,
)
from stream.spaces import OtherEncoder


class Tier:
    """The stage behind its guard, and all that it sends."""

    def __init__(
        self, encoder: HashEncoder | None = None, sentiment: SentimentModel | None = None
    ) -> None:
        self.encoder = encoder or HashEncoder()
        self.outbox = Outbox()
        self.reports: list[BatchReport] = []
        failures = Failures(DeadLetters(self.outbox, "0", lambda *_: None), "encode")
        queries = VectorCache(self.encoder, 100)
        self.stage = Encode(
            self.encoder,
            queries,
            self.outbox,
            failures,
            self.reports.append,
            sentiment=sentiment,
        )
        self.guard = Guard(self.stage.process, self.stage.reject, failures, StormGauge())

    async def __call__(self, *batch: SourceMessage) -> list[Output]:
        """Return what one micro-batch sends."""
        before = len(self.outbox.sent)
        await self.guard(batch)
        return self.outbox.sent[before:]

    @property
    def encoded(self) -> list[str]:
        return [text for call in self.encoder.calls for text in call]

    def items(self) -> dict[bytes | None, bytes | None]:
        """Return what compaction would leave of item-embeddings."""
        return {output.key: output.value for output in self.outbox.of("item-embeddings")}


@pytest.fixture
def tier() -> Tier:
    return Tier()


def put(item_id: str = "i1", title: str = "Red boots", offset: int = 0) -> SourceMessage:
    return message("items", item(item_id=item_id, title=title), offset)


def removed(item_id: str = "i1", offset: int = 0) -> SourceMessage:
    return message("items", None, offset, key=item_id.encode())


def embedding(output: Output) -> ItemEmbedding:
    assert output.topic == "item-embeddings"
    assert output.value is not None
    return read_item_embedding(output.value)


def embedded(output: Output) -> EmbeddedText:
    assert output.topic == "embedded-texts"
    assert output.value is not None
    return read_embedded_text(output.value)


def about(found: ItemEmbedding | EmbeddedText, text: str) -> bool:
    """Whether a vector, kept in half precision, is that of a text."""
    vector = HashEncoder().encode([text])[0]
    return bool(np.allclose(vector_of(found, "hash-32"), vector, atol=1e-3))


# --- items ---------------------------------------------------------------------------------------


async def test_an_item_gets_its_vector(tier: Tier) -> None:
    (output,) = await tier(put())
    assert output.key == b"i1"
    # The key decides the partition, as it does for whoever looks the item up.
    assert output.partition is None
    found = embedding(output)
    assert (found.item_id, found.encoder, found.dim) == ("i1", "hash-32", 32)
    assert about(found, "Red boots")


async def test_all_that_describes_an_item_is_encoded(tier: Tier) -> None:
    told = item(brand="Acme", categories=["Shoes", "Boots"], tags=["warm"], description="Wool.")
    await tier(message("items", told))
    assert tier.encoded == ["Red boots. Acme. Shoes Boots. warm. Wool."]


async def test_an_unchanged_text_is_not_encoded_again(tier: Tier) -> None:
    await tier(put())
    sold_out = item(in_stock=False, price=9.5, updated_ms=NOW_MS + 1)
    assert await tier(message("items", sold_out)) == []
    assert tier.encoded == ["Red boots"]
    assert tier.reports[-1].events == {("items", "unchanged"): 1}


async def test_a_changed_text_is_encoded_again(tier: Tier) -> None:
    await tier(put())
    (output,) = await tier(put(title="Blue boots"))
    assert about(embedding(output), "Blue boots")


async def test_only_the_newest_of_a_batch_is_encoded(tier: Tier) -> None:
    outputs = await tier(put(title="One"), put("i2", "Two"), put(title="Three"))
    assert sorted(tier.encoded) == ["Three", "Two"]
    assert {o.key: about(embedding(o), "Three") for o in outputs} == {
        b"i1": True,
        b"i2": False,
    }


async def test_a_text_changed_and_changed_back_in_one_batch_stays_as_published(tier: Tier) -> None:
    await tier(put(title="Red boots"))
    await tier(put(title="Blue boots"), put(title="Red boots"))
    assert about(read_item_embedding(tier.items()[b"i1"] or b""), "Red boots")
    # And what was never published does not count as such.
    await tier(put(title="Blue boots"))
    assert about(read_item_embedding(tier.items()[b"i1"] or b""), "Blue boots")


async def test_a_removed_item_loses_its_vector(tier: Tier) -> None:
    await tier(put())
    assert await tier(removed()) == [Output("item-embeddings", b"i1", None)]


async def test_an_item_that_comes_back_unchanged_is_encoded(tier: Tier) -> None:
    await tier(put())
    await tier(removed())
    assert len(await tier(put())) == 1


@pytest.mark.parametrize("known", [False, True], ids=["new", "published-before"])
@pytest.mark.parametrize(
    ("acts", "present"),
    [
        pytest.param("+-", False, id="put-removed"),
        pytest.param("-+", True, id="removed-put"),
        pytest.param("+-+", True, id="put-removed-put"),
        pytest.param("-+-", False, id="removed-put-removed"),
    ],
)
async def test_the_last_of_put_and_removed_in_one_batch_holds(
    tier: Tier, acts: str, present: bool, known: bool
) -> None:
    if known:
        await tier(put())
    await tier(*(put(offset=n) if act == "+" else removed(offset=n) for n, act in enumerate(acts)))
    assert (tier.items()[b"i1"] is not None) == present


async def test_a_long_description_is_cut() -> None:
    assert len(item_text(item(description="long " * 19_000))) == MAX_CHARS


# --- what was published before the start ---------------------------------------------------------


async def test_after_a_restart_an_unchanged_text_is_known(tier: Tier) -> None:
    (output,) = await tier(put())
    again = Tier()
    again.stage.restore("i1", embedding(output))
    assert await again(put()) == []
    assert len(await again(put(title="Blue boots"))) == 1


async def test_a_vector_of_another_encoder_is_made_anew(tier: Tier) -> None:
    (output,) = await tier(put())
    other = Tier(HashEncoder(dim=16))
    other.stage.restore("i1", embedding(output))
    assert len(await other(put())) == 1


async def test_vectors_of_another_encoder_alone_end_it_before_it_overwrites_any(tier: Tier) -> None:
    (output,) = await tier(put())
    other = Tier(HashEncoder(dim=16))
    other.stage.restore("i1", embedding(output))
    with pytest.raises(OtherEncoder, match=r"all of 1 item vectors: .*hash-16.*, got hash-32"):
        other.stage.require_own_vectors()
    # One of an item that has gone since tells nothing.
    other.stage.restore("i1", None)
    other.stage.require_own_vectors()


async def test_of_two_vectors_restored_the_later_counts(tier: Tier) -> None:
    (ours,) = await tier(put())
    (theirs,) = await Tier(HashEncoder(dim=16))(put())
    again = Tier()
    again.stage.restore("i1", embedding(ours))
    again.stage.restore("i1", embedding(theirs))
    assert len(await again(put())) == 1


async def test_a_restored_removal_is_a_removal(tier: Tier) -> None:
    (output,) = await tier(put())
    again = Tier()
    again.stage.restore("i1", embedding(output))
    again.stage.restore("i1", None)
    assert len(await again(put())) == 1


# --- texts of users ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "event", "kind", "text"),
    [
        pytest.param("searches", search(query="tea pot"), "search", "tea pot", id="search"),
        pytest.param("reviews", review(title="Fine", text="Warm"), "review", "Fine. Warm", id="r"),
        pytest.param("users", user(interests=["tea", "yarn"]), "user", "tea; yarn", id="user"),
    ],
)
async def test_a_text_travels_with_its_event_and_its_place(
    tier: Tier, topic: str, event: object, kind: str, text: str
) -> None:
    source = message(topic, event, 41, partition=3)
    (output,) = await tier(source)
    # Where the event was, its user's state is.
    assert (output.key, output.partition) == (b"u1", 3)
    found = embedded(output)
    assert (found.kind, found.encoder, found.dim) == (kind, "hash-32", 32)
    assert found.source == SourcePlace(topic, 3, 41, NOW_MS)
    assert found.event == source.value
    assert about(found, text)


async def test_texts_keep_the_order_of_their_events(tier: Tier) -> None:
    outputs = await tier(
        message("reviews", review(text="b"), 7),
        message("searches", search(query="a"), 3),
        put(),
        message("users", user(interests=["c"]), 9),
        message("searches", search(query="a"), 4),
    )
    texts = [embedded(o) for o in outputs if o.topic == "embedded-texts"]
    assert [t.source.offset for t in texts] == [7, 3, 9, 4]
    assert [about(t, text) for t, text in zip(texts, "baca", strict=True)] == [True] * 4


async def test_a_query_that_comes_again_is_encoded_once(tier: Tier) -> None:
    await tier(message("searches", search(), 0))
    await tier(message("searches", search(user_id="u2"), 1))
    assert tier.encoded == ["red boots"]


async def test_a_user_without_interests_gives_nothing(tier: Tier) -> None:
    assert await tier(message("users", user()), message("users", None, key=b"u2")) == []
    assert tier.encoded == []


async def test_a_user_who_wants_no_profile_is_not_read(tier: Tier) -> None:
    assert await tier(message("users", user(interests=["boots"], personalize=False))) == []
    assert tier.encoded == []


# --- what reviews say ----------------------------------------------------------------------------


class GoodOrBad:
    """A SentimentModel that knows one word; it keeps what it was asked."""

    encoder_id = "hash-32"

    def __init__(self, name: str = "sentiment-test") -> None:
        self.name = name
        self.asked: list[str] = []

    def content(self, texts: Sequence[str], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        np.testing.assert_allclose(vectors, HashEncoder().encode(texts), rtol=1e-6)
        self.asked += texts
        return np.array([0.912345 if "good" in text else 0.1 for text in texts])


async def test_a_review_goes_on_with_what_its_text_says() -> None:
    model = GoodOrBad()
    tier = Tier(sentiment=model)
    outputs = await tier(
        message("reviews", review(text="broke", title="Hm"), 1),
        message("searches", search(query="good boots"), 2),
        put(title="good boots"),
        message("reviews", review(text="good"), 3),
        message("users", user(interests=["good"]), 4),
    )
    said = {
        embedded(o).source: embedded(o).sentiment for o in outputs if o.topic == "embedded-texts"
    }
    assert said == {
        SourcePlace("reviews", 0, 1, NOW_MS): TextSentiment(0.1, "sentiment-test"),
        SourcePlace("searches", 0, 2, NOW_MS): None,
        SourcePlace("reviews", 0, 3, NOW_MS): TextSentiment(0.9123, "sentiment-test"),
        SourcePlace("users", 0, 4, NOW_MS): None,
    }
    # By the vector that there is: no text is encoded for it.
    assert model.asked == ["Hm. broke", "good"]
    assert len(tier.encoded) == 5
    assert tier.reports[-1].sentiments == {"negative": 1, "positive": 1}
    assert "sentiment" in tier.reports[-1].seconds


async def test_a_batch_is_read_by_one_model_and_the_next_by_another() -> None:
    class Replaced(GoodOrBad):
        """Another takes its place while it reads."""

        def content(
            self, texts: Sequence[str], vectors: NDArray[np.floating]
        ) -> NDArray[np.float64]:
            tier.stage.read_by(GoodOrBad("sentiment-new"))
            return super().content(texts, vectors)

    tier = Tier(sentiment=Replaced())
    said = []
    for offset in (1, 2):
        (output,) = await tier(message("reviews", review(text="good"), offset))
        said.append(embedded(output).sentiment)
    assert said == [
        TextSentiment(0.9123, "sentiment-test"),
        TextSentiment(0.9123, "sentiment-new"),
    ]


async def test_a_review_without_a_text_is_no_opinion() -> None:
    tier = Tier(sentiment=GoodOrBad())
    (output,) = await tier(message("reviews", review(text=" ", rating=5.0)))
    assert embedded(output).sentiment is None


async def test_without_a_model_a_text_travels_as_it_always_did(tier: Tier) -> None:
    (output,) = await tier(message("reviews", review()))
    assert embedded(output).sentiment is None
    assert b"sentiment" not in (output.value or b"")


# --- what goes wrong -----------------------------------------------------------------------------


async def test_bad_events_are_kept_and_their_neighbours_encoded(tier: Tier) -> None:
    bad = [
        message("searches", b"{", 1),
        message("searches", b'{"event_id": "s", "user_id": "u1", "event_time_ms": 1}', 2),
        message("searches", None, 3),
        message("searches", search(), 4, key=b"another"),
        message("reviews", b"\xff", 5),
        message("items", b"[" * 5000, 6),
    ]
    good = [message("searches", search(query=f"q{n}"), 10 + n) for n in range(6)]
    batch = [m for pair in zip(bad, good, strict=True) for m in pair]
    outputs = await tier(*batch)
    dead = [o for o in outputs if o.topic == "dead-letters"]
    assert [(o.key, o.value) for o in dead] == [(m.key, m.value) for m in bad]
    assert [dict(o.headers)["dlq.original.offset"] for o in dead] == [b"%d" % m.offset for m in bad]
    reasons = [dict(o.headers)["dlq.error.message"].decode() for o in dead]
    assert "`query`" in reasons[1]
    assert "`user_id`" in reasons[3]
    assert [embedded(o).source.offset for o in outputs if o.topic == "embedded-texts"] == [
        m.offset for m in good
    ]


async def test_a_bad_user_is_left_to_the_preference_tier(tier: Tier) -> None:
    assert await tier(message("users", b"{")) == []


async def test_an_event_with_no_room_left_for_its_vector_is_a_dead_letter(tier: Tier) -> None:
    # Unknown fields are allowed, and count.
    padding = b'{"padding": "' + b"x" * MAX_EVENT_BYTES + b'", '
    huge = message("searches", padding + msgspec.json.encode(search())[1:])
    big = message("items", padding + msgspec.json.encode(item())[1:], key=b"i1")
    outputs = await tier(huge, message("searches", search(), 1), big)
    (dead,) = [o for o in outputs if o.topic == "dead-letters"]
    assert "at most 1000000 bytes" in dict(dead.headers)["dlq.error.message"].decode()
    # Of an item, only the vector goes on.
    assert [o.topic for o in outputs if o is not dead] == ["item-embeddings", "embedded-texts"]


class Choosy(HashEncoder):
    """Cannot encode one word, as long as it has an error."""

    def __init__(self, word: str, error: Exception) -> None:
        super().__init__()
        self._word = word
        self.error: Exception | None = error

    def encode(self, texts: Sequence[str], side: Side = "passage") -> NDArray[np.float32]:
        if self.error and any(self._word in text for text in texts):
            raise self.error
        return super().encode(texts, side)


async def test_a_text_that_cannot_be_encoded_costs_one_dead_letter() -> None:
    tier = Tier(Choosy("poison", RuntimeError("a bug")))
    batch = [message("searches", search(query=f"q{n}"), n) for n in range(9)]
    batch[4] = message("searches", search(query="poison"), 4)
    outputs = await tier(*batch)
    assert [o.value for o in outputs if o.topic == "dead-letters"] == [batch[4].value]
    found = [embedded(o).source.offset for o in outputs if o.topic == "embedded-texts"]
    assert found == [0, 1, 2, 3, 5, 6, 7, 8]


async def test_without_a_device_nothing_is_given_up() -> None:
    encoder = Choosy("boots", EncoderUnavailable("no GPU"))
    tier = Tier(encoder)
    with pytest.raises(EncoderUnavailable):
        await tier(removed(), put())
    assert tier.outbox.sent == []
    encoder.error = None
    await tier(removed(), put())
    assert tier.items()[b"i1"] is not None


async def test_the_report_counts_what_was_done(tier: Tier) -> None:
    await tier(put(), removed("i2"), message("searches", search()), message("reviews", b"{"))
    report = tier.reports[-1]
    assert (report.stage, report.n_events, len(report.failures)) == ("encode", 4, 1)
    assert report.texts == {"item": 1, "search": 1}
    assert report.outputs == {"item-embeddings": 2, "embedded-texts": 1, "dead-letters": 1}
    assert set(report.seconds) == {"parse", "encode", "publish"}
