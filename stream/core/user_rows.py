"""UserState <-> its row: a version byte, a byte of flags, then MessagePack of columns.

Version 3. What is dear to write changes seldom: acts, texts, what the shop states. It is kept apart
as it was written, and the acts since then are told one by one behind it, until all of them go into
a new base. What was written of a state is kept beside it (``Written``), so that the next row of the
user is mostly a copy. Rows of versions 1 and 2 are read too.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from stream.core import user_rows_v1, user_rows_v2
from stream.core.user_columns import (
    BANDS,
    ActColumns,
    PendingColumns,
    SumColumns,
    TextColumns,
    act_columns,
    activity_columns,
    activity_of,
    acts_of,
    ago_of,
    checked,
    interest_of,
    pending_columns,
    pending_of,
    sum_columns,
    text_columns,
    texts_of,
    time_of,
)
from stream.core.user_state import Act, Faded, Stated, TextAct, UserState
from stream.messages import Trigger

VERSION = 3
#: So many acts may wait behind a base: MessagePack's mark of an array of up to 15 is one byte.
MOST_BEHIND = 15
_FEW = 0x90
#: The kinds of acts that can be told behind a base, by number: to be added to at the end alone.
#: Written out, since types of interactions may come in any order.
KINDS: Final = (
    "impression",
    "view",
    "click",
    "add_to_cart",
    "remove_from_cart",
    "favorite",
    "purchase",
    "dislike",
    "review",
)
_KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_HAS_PENDING = 1
_DUE, _NOT_DUE = bytes((VERSION, _HAS_PENDING)), bytes((VERSION, 0))
_BAND_NUMBERS = {band: number for number, band in enumerate(BANDS)}
NO_STATED = Stated()


#: What reading bytes that nobody wrote may raise.
DAMAGE = (
    msgspec.DecodeError,
    struct.error,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
)


class BadRow(ValueError):
    """A stored row that cannot be read."""


class NewerRow(BadRow):
    """A row of a version that this program does not know: it must not be written over."""


class _Base(Struct, frozen=True, array_like=True, gc=False):
    """``base_ms`` is the latest event time in it."""

    base_ms: int
    acts: ActColumns | None
    texts: tuple[TextColumns, ...]
    faded: tuple[Faded, ...]
    stated: Stated | None


class _Body(Struct, frozen=True, array_like=True, gc=False):
    """``base_ms`` is the latest event time of all; ``*_ago`` are told from it."""

    base_ms: int
    base: bytes
    offsets: tuple[int, ...]
    activity: tuple[int | float | bytes, ...]
    event_ids: bytes
    behind: msgspec.Raw  # the acts that are not in the base
    long: SumColumns | None
    region: str | None
    region_ago: int


class _Row(_Body, frozen=True, array_like=True, gc=False):
    """The columns of the body, and behind them what is due and was done."""

    pending: PendingColumns | None
    recommended_ago: int
    band: int


class Written(NamedTuple):
    """What a row begins with, as it was written, and the parts of the state that it tells."""

    acts: tuple[Act, ...]
    others: tuple[tuple[TextAct, ...], tuple[Faded, ...], Stated]
    base_ms: int
    base: bytes
    behind: tuple[bytes, ...]  # an act each

    def followed_by(self, state: UserState) -> Written | None:
        """Return this with the acts since, None where the state is not this and a few acts more."""
        n = len(self.acts)
        since = state.acts[n:]
        # Mostly the very same objects, which Python sees without looking into them.
        if (
            len(self.behind) + len(since) > MOST_BEHIND
            or state.acts[:n] != self.acts
            or _others(state) != self.others
            or not all(act.kind in _KIND_NUMBERS for act in since)
        ):
            return None
        if not since:
            return self
        told = tuple([_told(act, self.base_ms) for act in since])
        return Written(state.acts, self.others, self.base_ms, self.base, self.behind + told)


class Body(NamedTuple):
    """The part of a row that is dear to write: all but what is due, and when something last was."""

    base_ms: int
    columns: bytes
    written: Written


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Row)
_base_decoder = msgspec.msgpack.Decoder(_Base)
_pending_decoder = msgspec.msgpack.Decoder(PendingColumns | None)
_behind_decoder = msgspec.msgpack.Decoder(list[tuple[int, str, int, int]])
#: A weight, float32, is told by its bits: MessagePack would take nine bytes.
_FLOAT, _BITS = struct.Struct("<f"), struct.Struct("<I")
#: MessagePack's mark of an array of so many elements: one byte, for up to 15 of them.
_COLUMNS = bytes((0x90 | len(_Row.__struct_fields__),))
#: The most that MessagePack takes for a number.
_NUMBER_BYTES = 9


def to_row(state: UserState) -> bytes:
    """Return the row of a state."""
    return row_of(to_body(state), state)


def row_of(body: Body, state: UserState) -> bytes:
    """Return the row of a state whose body is known."""
    pending, base_ms = state.pending, body.base_ms
    return b"".join(
        (
            _DUE if pending else _NOT_DUE,
            _COLUMNS,
            body.columns,
            _encode(pending_columns(pending) if pending else None),
            _encode(ago_of(state.recommended_ms, base_ms)),
            _encode(_BAND_NUMBERS[state.band]),
        )
    )


def longest(body: Body, state: UserState, pending: Trigger | None) -> int:
    """Return what the row takes at most with ``pending`` due, and once that is done."""
    due = len(_encode(pending_columns(pending) if pending else None))
    due += len(_encode(ago_of(state.recommended_ms, body.base_ms)))
    done = 1 + _NUMBER_BYTES
    return len(_DUE) + len(_COLUMNS) + len(body.columns) + max(due, done) + 1


def to_body(state: UserState, before: Written | None = None) -> Body:
    """Return the body of a state's row; ``before`` is what was written of the state before."""
    written = (before and before.followed_by(state)) or _anew(state)
    acts, long, activity = state.acts, state.long, state.activity
    base_ms = max(
        acts[-1].event_time_ms if acts else 0,
        activity.last_ms if activity else 0,
        long.as_of_ms if long else 0,
        state.seen_region_ms,
    )
    behind = written.behind
    columns = _Body(
        base_ms,
        written.base,
        state.offsets,
        activity_columns(activity, base_ms) if activity else (),
        state.event_ids,
        msgspec.Raw(b"".join((bytes((_FEW | len(behind),)), *behind))),
        sum_columns(long, base_ms) if long else None,
        state.seen_region,
        ago_of(state.seen_region_ms, base_ms),
    )
    return Body(base_ms, _encode(columns)[1:], written)


def from_row(row: bytes) -> UserState:
    """Return the state of a row; raises NewerRow for a version not known here, or BadRow."""
    return read_row(row)[0]


def read_row(row: bytes) -> tuple[UserState, Written | None]:
    """Return the state of a row, and what is written of it; raises as ``from_row`` does."""
    version = _version(row)
    try:
        if version == 1:
            return checked(user_rows_v1.state_of(row)), None
        if version == 2:
            return checked(user_rows_v2.state_of(row)), None
        return _read(row)
    except DAMAGE as error:
        raise BadRow(f"damaged user row of version {version}: {error}") from None


def has_pending(row: bytes) -> bool:
    """True when a recommendation is due to the row's user; raises as ``from_row`` does."""
    if _version(row) == 1:
        return from_row(row).pending is not None
    return bool(row[1] & _HAS_PENDING)


def _version(row: bytes) -> int:
    if len(row) < 2:
        raise BadRow(f"expected a user row, got {len(row)} bytes")
    if not 1 <= row[0] <= VERSION:
        raise NewerRow(
            f"expected a user row of version {VERSION} or earlier, got version {row[0]}: "
            "was it written by a newer prefstream?"
        )
    return row[0]


def _read(row: bytes) -> tuple[UserState, Written]:
    columns = _decoder.decode(memoryview(row)[2:])
    base_ms, base = columns.base_ms, _base_decoder.decode(columns.base)
    first = acts_of(base.acts, base.base_ms) if base.acts else ()
    behind = _behind_decoder.decode(columns.behind)
    if len(behind) > MOST_BEHIND:
        raise ValueError(f"{len(behind)} acts behind the base")
    since = [_act(act, base.base_ms) for act in behind]
    state = UserState(
        offsets=columns.offsets,
        long=interest_of(columns.long, base_ms) if columns.long else None,
        acts=(*first, *since),
        texts=texts_of(base.texts, base.base_ms),
        faded=base.faded,
        activity=activity_of(columns.activity, base_ms) if columns.activity else None,
        event_ids=columns.event_ids,
        stated=base.stated or NO_STATED,
        seen_region=columns.region,
        seen_region_ms=time_of(columns.region_ago, base_ms),
        pending=pending_of(columns.pending),
        recommended_ms=time_of(columns.recommended_ago, base_ms),
        band=BANDS[columns.band],
    )
    written = written_of(state, base.base_ms, columns.base, len(since))
    return checked(state), written


def written_of(state: UserState, base_ms: int, base: bytes, n_behind: int) -> Written:
    """Return what is written of a state whose base, and the number of acts behind it, are known."""
    since = state.acts[len(state.acts) - n_behind :]
    told = tuple([_told(act, base_ms) for act in since])
    return Written(state.acts, _others(state), base_ms, base, told)


def pending_in(raw: bytes) -> Trigger | None:
    """Return the trigger that a column tells; raises one of ``DAMAGE``."""
    return pending_of(_pending_decoder.decode(raw))


def rest_of(raw: bytes) -> tuple[tuple[TextAct, ...], tuple[Faded, ...], Stated]:
    """Return what a base tells beside the acts; raises one of ``DAMAGE``."""
    base = _base_decoder.decode(raw)
    return texts_of(base.texts, base.base_ms), base.faded, base.stated or NO_STATED


def _anew(state: UserState) -> Written:
    """Write all of a state's acts, texts and statements into a base."""
    acts, stated = state.acts, state.stated
    base_ms = acts[-1].event_time_ms if acts else 0
    columns = _Base(
        base_ms,
        act_columns(acts, base_ms) if acts else None,
        tuple([text_columns(text, base_ms) for text in state.texts]) if state.texts else (),
        state.faded,
        None if stated is NO_STATED or stated == NO_STATED else stated,
    )
    return Written(acts, _others(state), base_ms, _encode(columns), ())


def _others(state: UserState) -> tuple[tuple[TextAct, ...], tuple[Faded, ...], Stated]:
    return state.texts, state.faded, state.stated


def _told(act: Act, base_ms: int) -> bytes:
    [bits] = _BITS.unpack(_FLOAT.pack(act.weight))
    number = _KIND_NUMBERS[act.kind] << 1 | act.folded
    return _encode((act.event_time_ms - base_ms, act.item_id, number, bits))


def _act(told: tuple[int, str, int, int], base_ms: int) -> Act:
    since_ms, item_id, number, bits = told
    [weight] = _FLOAT.unpack(_BITS.pack(bits))
    return Act(base_ms + since_ms, item_id, KINDS[number >> 1], weight, number & 1 == 1)
