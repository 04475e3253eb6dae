"""The judge itself, without a broker: honest evidence passes, each way of tampering is found."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from faults.generator import HOSTILE, Sent, Shoppers
from faults.oracle import Evidence, judge
from faults.reference import ID_MEMORY, Read, Sources
from faults.trial import ROOMY_BYTES
from msgspec import structs

from stream.core.fold import Sourced, fold
from stream.core.intake import intake
from stream.core.profiles import long_interest
from stream.core.user_rows import from_row, to_row
from stream.core.user_state import Rules, UserState
from stream.delivery import SourceMessage
from stream.settings import load_settings

RULES = Rules.of(load_settings(max_state_bytes=ROOMY_BYTES, event_id_memory=ID_MEMORY))
SENT_MS = 1_900_000_000_000


@dataclass(frozen=True)
class Record:
    """What the outside client gives of a message."""

    k: bytes
    v: bytes | None
    h: tuple[tuple[str, bytes], ...] = ()

    def key(self) -> bytes:
        return self.k

    def value(self) -> bytes | None:
        return self.v

    def headers(self) -> Any:
        return list(self.h)


def vector(text: str) -> bytes:
    seed = int.from_bytes(hashlib.md5(text.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).standard_normal(8).astype("<f2").tobytes()


def honest() -> Evidence:
    """Return what an engine that does everything right leaves behind."""
    shoppers = Shoppers(seed=5, n_users=20)
    messages = [m for m in shoppers.events(1200, HOSTILE) if m.topic in ("clickstream", "searches")]
    sent = [Sent(message, 0, offset) for offset, message in enumerate(messages)]
    items = {item: np.frombuffer(vector(item), "<f2").astype(np.float64) for item in shoppers.items}
    texts = {s.place: vector("q") for s in sent if s.message.topic == "searches"}
    sources = Sources(
        [Read(s.place, SENT_MS + s.offset, s.message.key or b"", s.message.value) for s in sent],
        items,
        texts,
        frozenset(s.place for s in sent if s.message.fate == "dead"),
    )
    rows = fold_all(sent, items, texts)
    return Evidence(
        sent=sent,
        sources=sources,
        live=rows,
        replayed=rows,
        recommendations=[listed(s) for s in last_triggers(sent)],
        churn_risks=[assessed(user) for user in rows],
        search_results=[found(s) for s in good_searches(sent)],
        dead_letters=[buried(s) for s in sent if s.message.fate == "dead"],
        offsets={("g", "clickstream", 0): (len(sent), len(sent))},
        drained_s=1.0,
        deadline_s=60.0,
    )


def fold_all(sent: list[Sent], items: dict[str, Any], texts: dict[Any, bytes]) -> dict[str, bytes]:
    states: dict[str, UserState] = {}
    vectors = {item: v.astype(np.float32) for item, v in items.items()}
    for one in sent:
        if one.message.fate == "dead":
            continue
        user = (one.message.key or b"").decode()
        event = sourced(one, texts)
        states[user] = fold(states.get(user, UserState()), [event], vectors, RULES).state
    return {user: to_row(state) for user, state in states.items()}


def sourced(one: Sent, texts: dict[Any, bytes]) -> Sourced:
    from stream.core.events import parse_interaction, parse_search

    topic, message = one.message.topic, one.message
    parse: Any = parse_interaction if topic == "clickstream" else parse_search
    raw = texts.get(one.place)
    return Sourced(
        topic,
        0,
        one.offset,
        SENT_MS + one.offset,
        parse(message.value, message.key),
        None if raw is None else np.frombuffer(raw, "<f2").astype(np.float32),
    )


def last_triggers(sent: list[Sent]) -> list[Sent]:
    last = {
        s.message.key: s
        for s in sent
        if s.message.fate == "good" and b'"impression"' not in (s.message.value or b"")
    }
    return list(last.values())


def listed(one: Sent, generated_ms: int = SENT_MS) -> Record:
    cause = "\x1f".join(("recommendation", *map(str, one.place)))
    topic, partition, offset = one.place
    key = one.message.key or b""
    message = {
        "recommendation_id": hashlib.sha256(cause.encode()).hexdigest()[:32],
        "user_id": key.decode(),
        "generated_ms": generated_ms,
        "trigger": {"topic": topic, "partition": partition, "offset": offset},
    }
    return Record(key, json.dumps(message).encode())


def good_searches(sent: list[Sent]) -> list[Sent]:
    good = (s for s in sent if s.message.topic == "searches" and s.message.fate == "good")
    return list({json.loads(s.message.value or b"")["event_id"]: s for s in good}.values())


def found(one: Sent, generated_ms: int = SENT_MS) -> Record:
    name = json.loads(one.message.value or b"")["event_id"]
    answer = {"search_event_id": name, "items": [], "generated_ms": generated_ms}
    return Record(one.message.key or b"", json.dumps(answer).encode())


def assessed(user: str, before: str | None = None, band: str = "low") -> Record:
    message = {"assessment_id": f"{user}{before}{band}", "user_id": user, "band": band}
    return Record(user.encode(), json.dumps({**message, "previous_band": before}).encode())


def buried(one: Sent) -> Record:
    topic, partition, offset = one.place
    facts = {"topic": topic, "partition": str(partition), "offset": str(offset)}
    added = tuple((f"dlq.original.{name}", text.encode()) for name, text in facts.items())
    message = one.message
    return Record(message.key or b"", message.value, (*message.headers, *added))


HONEST = honest()


def test_the_reference_and_the_engines_fold_agree_on_a_hostile_stream() -> None:
    assert judge(HONEST) == []


def without_one_event() -> Evidence:
    victim = next(s for s in HONEST.sent if s.message.fate == "good" and b"view" in s.message.value)
    sent = [s for s in HONEST.sent if s is not victim]
    items = dict(HONEST.sources.item_vectors)
    rows = fold_all(sent, items, dict(HONEST.sources.text_vectors))
    return replace(HONEST, live=rows, replayed=rows)


def one_event_twice() -> Evidence:
    user, row = next(iter(HONEST.replayed.items()))
    state = from_row(row)
    last = next(s for s in reversed(HONEST.sent) if s.message.key == user.encode())
    raw = {**json.loads(last.message.value or b""), "event_id": "again"}
    content = intake(
        SourceMessage("clickstream", 0, 10**6, SENT_MS, user.encode(), again(raw)), ""
    ).content
    assert isinstance(content, Sourced)
    vectors = {i: v.astype(np.float32) for i, v in HONEST.sources.item_vectors.items()}
    rows = {**HONEST.replayed, user: to_row(fold(state, [content], vectors, RULES).state)}
    return replace(HONEST, live=rows, replayed=rows)


def again(raw: dict[str, Any]) -> bytes:
    return json.dumps({**raw, "item_id": "i000", "type": "view"}).encode()


def a_sum_from_which_half_is_missing() -> Evidence:
    """Nothing but the vector is wrong: what the bound on its rounding leaves room for is less."""
    items = HONEST.sources.item_vectors
    states = {user: from_row(row) for user, row in HONEST.replayed.items()}
    user, state = max(states.items(), key=lambda one: len(one[1].acts))
    assert state.long is not None
    vectors = {i: v.astype(np.float32) for i, v in items.items()}
    whole, _ = long_interest(state, vectors, RULES)
    assert whole is not None
    packed = state.long.packed().plus(-whole / 2, 0)
    long = structs.replace(state.long, values=packed.values, steps=packed.steps, unit=packed.unit)
    rows = {**HONEST.replayed, user: to_row(structs.replace(state, long=long))}
    return replace(HONEST, live=rows, replayed=rows)


def a_stale_live_row() -> Evidence:
    user = next(iter(HONEST.replayed))
    return replace(HONEST, live={**HONEST.replayed, user: to_row(UserState())})


def a_list_with_other_bytes() -> Evidence:
    first = last_triggers(list(HONEST.sent))[0]
    return replace(
        HONEST, recommendations=[*HONEST.recommendations, listed(first, SENT_MS + 10_000)]
    )


def a_list_of_nothing() -> Evidence:
    first = replace(last_triggers(list(HONEST.sent))[0], offset=10**6)
    return replace(
        HONEST, recommendations=[*HONEST.recommendations, listed(first, SENT_MS + 10_000)]
    )


def a_missing_list() -> Evidence:
    return replace(HONEST, recommendations=HONEST.recommendations[1:])


def a_skipped_band() -> Evidence:
    user = next(iter(HONEST.replayed))
    return replace(HONEST, churn_risks=[*HONEST.churn_risks, assessed(user, "medium", "high")])


def a_missing_answer() -> Evidence:
    return replace(HONEST, search_results=HONEST.search_results[1:])


def answers_with_other_bytes() -> Evidence:
    searches = good_searches(list(HONEST.sent))
    more = [found(s, SENT_MS + n) for s in searches for n in range(1, 5)]
    return replace(HONEST, search_results=[*HONEST.search_results, *more])


def an_answer_to_nobody() -> Evidence:
    first = HONEST.search_results[0]
    return replace(HONEST, search_results=[*HONEST.search_results, replace(first, k=b"nobody")])


def a_missing_dead_letter() -> Evidence:
    return replace(HONEST, dead_letters=HONEST.dead_letters[1:])


def a_good_one_buried() -> Evidence:
    good = next(s for s in HONEST.sent if s.message.fate == "good")
    return replace(HONEST, dead_letters=[*HONEST.dead_letters, buried(good)])


def a_dead_letter_without_its_headers() -> Evidence:
    first = HONEST.dead_letters[0]
    cut = replace(first, h=tuple(h for h in first.h if h[0].startswith("dlq.")))
    return replace(HONEST, dead_letters=[cut, *HONEST.dead_letters[1:]])


def an_uncommitted_offset() -> Evidence:
    return replace(HONEST, offsets={("g", "clickstream", 0): (5, 9)})


def never_drained() -> Evidence:
    return replace(HONEST, drained_s=None)


@pytest.mark.parametrize(
    ("tampered", "part"),
    [
        (without_one_event, "a"),
        (one_event_twice, "a"),
        (a_sum_from_which_half_is_missing, "a"),
        (a_stale_live_row, "a"),
        (a_list_with_other_bytes, "b"),
        (a_list_of_nothing, "b"),
        (a_missing_list, "b"),
        (a_skipped_band, "b"),
        (a_missing_answer, "b"),
        (answers_with_other_bytes, "b"),
        (an_answer_to_nobody, "b"),
        (a_missing_dead_letter, "c"),
        (a_good_one_buried, "c"),
        (a_dead_letter_without_its_headers, "c"),
        (an_uncommitted_offset, "d"),
        (never_drained, "e"),
    ],
)
def test_tampering_is_found(tampered: Any, part: str) -> None:
    findings = judge(tampered())
    assert findings
    assert {finding.part for finding in findings} == {part}
