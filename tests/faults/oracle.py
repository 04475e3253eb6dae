"""The judge: after the stream has drained, is everything there, and nothing twice?

Five parts. (a) live rows == reference == a fresh replay of the changelog; (b) outputs: each from an
event that was sent, repeats byte-identical, each user answered; (c) what was folded and what is a
dead letter are together all that was sent, and disjoint; (d) committed offsets == log end; (e) in
time. A part yields findings, each a sentence; none is a verdict by itself.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec
from faults.answers import answers_off
from faults.generator import Sent
from faults.reference import Place, Sources, State, expected_states, trigger_places
from faults.rows import differences, state_of
from msgspec import Struct

_Output = TypeVar("_Output")
Part = Literal["a", "b", "c", "d", "e"]
SHOWN = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be; ``lost`` and ``doubled`` count events or outputs."""

    part: Part
    text: str
    lost: int = 0
    doubled: int = 0

    def __str__(self) -> str:
        return f"({self.part}) {self.text}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an outside observer found after the run."""

    sent: Sequence[Sent]
    sources: Sources
    #: Raw rows by user: as the workers hold them (None: nobody could look), and replayed.
    live: Mapping[str, bytes] | None
    replayed: Mapping[str, bytes]
    recommendations: Sequence[Any]
    churn_risks: Sequence[Any]
    search_results: Sequence[Any]
    dead_letters: Sequence[Any]
    #: (group, topic, partition) -> (committed, end)
    offsets: Mapping[tuple[str, str, int], tuple[int, int]]
    drained_s: float | None
    deadline_s: float
    min_interval_ms: int = 0
    #: Users of whom nothing is to be left.
    erased: frozenset[str] = frozenset()
    #: Users who did more than a row has room for: what gives way the reference does not know.
    overfull: frozenset[str] = frozenset()
    #: Places that must be dead letters though the message is good: a bug was put in for them.
    failing: frozenset[Place] = frozenset()
    states: Mapping[str, State] = field(default_factory=dict)


def judge(evidence: Evidence) -> list[Finding]:
    """Return everything that is wrong."""
    return [
        *_states(evidence),
        *_recommendations(evidence),
        *_churn(evidence),
        *_searches(evidence),
        *_erased(evidence),
        *_everything_accounted_for(evidence),
        *_committed(evidence),
        *_in_time(evidence),
    ]


# (a) ---------------------------------------------------------------------------------------


def _states(evidence: Evidence) -> Iterator[Finding]:
    expected = evidence.states or expected_states(evidence.sources)
    items = evidence.sources.item_vectors
    replay = {user: state_of(row, items) for user, row in evidence.replayed.items()}
    yield from compare("the changelog's replay", expected, replay, evidence.overfull)
    if evidence.live is None:
        return
    for user in sorted({*evidence.live, *evidence.replayed}):
        if evidence.live.get(user) != evidence.replayed.get(user):
            yield Finding("a", f"user {user}: the live row is not the one of a fresh replay")


def compare(
    where: str,
    expected: Mapping[str, State],
    found: Mapping[str, State],
    overfull: frozenset[str] = frozenset(),
) -> list[Finding]:
    """Hold states against the reference; a control without our rows brings its own.

    Of the ``overfull`` only what a full row keeps is looked at: the number of their acts.
    """
    findings = []
    for user in sorted(set(expected) - set(found)):
        findings.append(Finding("a", f"user {user} is missing in {where}", lost=1))
    for user in sorted(set(found) - set(expected)):
        findings.append(Finding("a", f"user {user} should not be in {where}", doubled=1))
    for user in sorted(set(found) & set(expected)):
        off = differences(expected[user], found[user])
        if user in overfull and expected[user].get("n_acts") == found[user].get("n_acts"):
            off = []
        if off:
            more = found[user].get("n_acts", 0) - expected[user].get("n_acts", 0)
            text = f"user {user} in {where}: {'; '.join(off)}"
            findings.append(Finding("a", text, lost=max(-more, 0), doubled=max(more, 0)))
        pending = found[user].get("pending")
        if pending is not None:
            findings.append(Finding("a", f"user {user}: a recommendation is still due", lost=1))
    return findings


# (b) ---------------------------------------------------------------------------------------


def _id(kind: str, *cause: object) -> str:
    return hashlib.sha256("\x1f".join((kind, *map(str, cause))).encode()).hexdigest()[:32]


class _Cause(Struct):
    topic: str
    partition: int
    offset: int

    @property
    def place(self) -> Place:
        return self.topic, self.partition, self.offset


class _List(Struct):
    """What is judged of a recommendation: an hour's lists, whole, would fill the memory."""

    recommendation_id: str
    user_id: str
    generated_ms: int
    trigger: _Cause


class _Assessment(Struct):
    assessment_id: str


def _distinct(
    records: Iterable[Any], kind: type[_Output], name_of: Callable[[_Output], str]
) -> tuple[dict[str, _Output], list[Finding]]:
    """Return the messages by id, in order of first appearance; repeats must be the same bytes."""
    read = msgspec.json.Decoder(kind).decode
    first: dict[str, bytes] = {}
    messages: dict[str, _Output] = {}
    findings = []
    for record in records:
        if record.value() is None:
            continue
        message = read(record.value())
        name = name_of(message)
        if name not in first:
            first[name], messages[name] = record.value(), message
        elif first[name] != record.value():
            text = f"{kind.__name__[1:].lower()} {name} came again with other bytes"
            findings.append(Finding("b", text, 0, 1))
    return messages, findings


def _lists(records: Iterable[Any]) -> tuple[dict[str, _List], list[Finding]]:
    return _distinct(records, _List, lambda one: one.recommendation_id)


def _recommendations(evidence: Evidence) -> Iterator[Finding]:
    published, findings = _lists(evidence.recommendations)
    yield from findings
    sent = {sent.place: sent.message for sent in evidence.sent}
    by_user: dict[str, list[_List]] = defaultdict(list)
    for name, message in published.items():
        place = message.trigger.place
        by_user[message.user_id].append(message)
        if name != _id("recommendation", *place):
            yield Finding("b", f"recommendation {name} is not the id of its trigger {place}", 0, 1)
        if place not in sent:
            yield Finding("b", f"recommendation {name} of an event nobody sent: {place}", 0, 1)
        elif sent[place].key != message.user_id.encode():
            yield Finding("b", f"recommendation {name} is for another user than its trigger")
    yield from _answered(evidence, by_user)
    for user, messages in sorted(by_user.items()):
        times = sorted(message.generated_ms for message in messages)
        gaps = [b - a for a, b in itertools.pairwise(times)]
        if gaps and min(gaps) < evidence.min_interval_ms:
            text = f"user {user}: two recommendations within {min(gaps)} ms"
            yield Finding("b", text, doubled=1)


def answered_once(sent: Sequence[Sent], records: Sequence[Any]) -> list[Finding]:
    """Hold the answers of a control, one for each message, against what was sent."""
    published, findings = _lists(records)
    wanted = {_id("recommendation", *one.place): one.place for one in sent}
    for name in sorted(set(wanted) - set(published)):
        findings.append(Finding("b", f"{wanted[name]} was never answered", lost=1))
    for name in sorted(set(published) - set(wanted)):
        findings.append(Finding("b", f"answer {name} is to nothing that was sent", doubled=1))
    return findings


def _answered(evidence: Evidence, by_user: Mapping[str, list[_List]]) -> Iterator[Finding]:
    """Each user's last event, as one of the topics knows it, must have been answered."""
    for user, last in sorted(trigger_places(evidence.sources).items()):
        if user in evidence.erased:
            continue
        answered = {message.trigger.place for message in by_user.get(user, [])}
        if not answered & set(last.values()):
            text = f"user {user}: no recommendation at or after the last of {sorted(last.values())}"
            yield Finding("b", text, lost=1)


def _churn(evidence: Evidence) -> Iterator[Finding]:
    _, findings = _distinct(evidence.churn_risks, _Assessment, lambda one: one.assessment_id)
    yield from findings
    bands: dict[str, str] = {}
    seen: set[str] = set()
    for record in evidence.churn_risks:
        user = record.key().decode()
        if record.value() is None:  # erased: whatever comes after begins anew
            bands.pop(user, None)
            continue
        message = json.loads(record.value())
        name, before = message["assessment_id"], message.get("previous_band")
        if name in seen:
            continue
        seen.add(name)
        if bands.get(user) != before:
            text = f"assessment {name} of {user}: from band {before}, but it was {bands.get(user)}"
            yield Finding("b", text, lost=1)
        bands[user] = message["band"]
    for user, row in sorted(evidence.replayed.items()):
        if state_of(row)["n_acts"] and user not in bands:
            yield Finding("b", f"user {user} was never assessed", lost=1)


def _searches(evidence: Evidence) -> Iterator[Finding]:
    for off in answers_off(evidence.sources, evidence.search_results, evidence.failing):
        yield Finding("b", off.text, off.lost, off.doubled)


def _erased(evidence: Evidence) -> Iterator[Finding]:
    """Of an erased user the last word of each compacted topic is a tombstone, or nothing."""
    outputs = {
        "recommendations": evidence.recommendations,
        "churn-risk": evidence.churn_risks,
        "search-results": evidence.search_results,
    }
    for topic, records in outputs.items():
        last = {record.key().decode(): record.value() for record in records}
        for user in sorted(evidence.erased):
            if last.get(user) is not None:
                yield Finding("b", f"erased user {user} is still in {topic}", doubled=1)


# (c) ---------------------------------------------------------------------------------------


def _everything_accounted_for(evidence: Evidence) -> Iterator[Finding]:
    dead: dict[Place, list[Any]] = defaultdict(list)
    for record in evidence.dead_letters:
        headers = {name: value.decode() for name, value in record.headers() if name[:4] == "dlq."}
        place = (
            headers["dlq.original.topic"],
            int(headers["dlq.original.partition"]),
            int(headers["dlq.original.offset"]),
        )
        dead[place].append(record)
    sent = {s.place: s for s in evidence.sent}
    must_die = {p for p, s in sent.items() if s.message.fate == "dead"} | evidence.failing
    for place in sorted(must_die - set(dead)):
        value = sent[place].message.value if place in sent else b"?"
        yield Finding("c", f"{place} is no dead letter: {value!r:.40}", lost=1)
    for place in sorted(set(dead) - must_die):
        why = dict(dead[place][0].headers()).get("dlq.error.message", b"").decode()
        yield Finding(
            "c", f"{place} is a dead letter ({why}), but nothing is wrong with it", lost=1
        )
    for place in sorted(set(dead) & set(sent)):
        yield from _kept_as_it_was(place, sent[place], dead[place])
    # A good one that is not a dead letter is in its user's state, or (a) has said so; what the
    # encoder has to pass on can be missing before that.
    removed = {
        one.message.key
        for one in sent.values()
        if one.message.topic == "items" and one.message.value is None
    }
    for place, one in sent.items():
        topic, fate = one.message.topic, one.message.fate
        passes = topic in ("searches", "reviews") and fate != "dead"
        if passes and place not in evidence.sources.text_vectors and place not in dead:
            yield Finding("c", f"{place} was never encoded", lost=1)
        is_kept = one.message.value and one.message.key not in removed
        if topic == "items" and is_kept and fate == "good":
            item_id = (one.message.key or b"").decode()
            if item_id not in evidence.sources.item_vectors:
                yield Finding("c", f"item {item_id} was never encoded", lost=1)


def _kept_as_it_was(place: Place, sent: Sent, letters: Sequence[Any]) -> Iterator[Finding]:
    if len({(r.key(), r.value(), tuple(r.headers())) for r in letters}) > 1:
        yield Finding("c", f"{place}: dead letters that differ", doubled=1)
    for letter in letters:
        headers = tuple((name, v) for name, v in letter.headers() if not name.startswith("dlq."))
        cut = dict(letter.headers()).get("dlq.truncated", b"").decode()
        whole = (letter.key(), letter.value(), headers)
        was = (sent.message.key, sent.message.value, sent.message.headers)
        if not cut and whole != was:
            yield Finding("c", f"{place}: the dead letter is not the message as it came", lost=1)


# (d), (e) ---------------------------------------------------------------------------------------


def _committed(evidence: Evidence) -> Iterator[Finding]:
    for (group, topic, partition), (committed, end) in sorted(evidence.offsets.items()):
        if end and committed != end:
            text = f"{group} committed {committed} of {topic}[{partition}], whose end is {end}"
            yield Finding("d", text, lost=max(0, end - max(committed, 0)))


def _in_time(evidence: Evidence) -> Iterator[Finding]:
    if evidence.drained_s is None:
        yield Finding("e", f"not drained within {evidence.deadline_s:.0f} s")


def told(findings: Sequence[Finding]) -> str:
    """Return the findings as text, the first of each part in full."""
    lines: list[str] = []
    for part in "abcde":
        of_part = [finding for finding in findings if finding.part == part]
        lines += map(str, of_part[:SHOWN])
        if len(of_part) > SHOWN:
            lines.append(f"({part}) … and {len(of_part) - SHOWN} more")
    return "\n".join(lines)
