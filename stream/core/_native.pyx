# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=False
"""The fold of plain interactions from row bytes to row bytes, without a Python object per act.

What fold.py, bounds.py, user_rows.py and user_columns.py say in Python, said once more over C
structs, to the bit: the same rows, outcomes, touches and triggers, which property tests compare.
Those modules are the reference, and do all that is rare: other events than interactions, older
rows, rows that are damaged or hold what this does not foresee.

What stands for itself is in _blake2b.pxi, _msgpack.pxi, _ids.pxi, _acts.pxi and _pairs.pxi.

A ``NativeUser`` is not changed once it was folded or read, but for what is due and was done: a
fold makes a new one, so that a batch that fails leaves what is remembered as it was.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport fabs, floor, frexp, isfinite, pow, signbit
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

import msgspec
import numpy as np

from models import hashed_ids, packed_vector
from models.activity import LONG_HALF_LIFE_MS, SHORT_HALF_LIFE_MS, Activity
from models.profile import HistoryItem
from stream.core import bounds, packed_ids, user_columns, user_rows, user_state
from stream.core.events import Interaction
from stream.core.fold import TAKING, Touch
from stream.core.user_state import LATEST_MS, NO_PERIOD, PERIOD_MS, SOURCES, STAMP_BYTES
from stream.core.user_state import Act as PyAct, Faded, Interest, UserState
from stream.messages import Trigger

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    int PyUnicode_Compare(object one, object other) except? -1
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    Py_hash_t PyObject_Hash(object o) except? -1

cdef enum:
    SOURCES_N = 5
    ID_BYTES = 6
    BLOCK = 64
    DAY_MS = 86400000
    DAY_WORDS = 8
    WINDOW_DAYS = 512
    N_KINDS = 9
    MOST_BEHIND = 15
    N_TURNS = 4096
    # A sum of more dimensions is left to Python.
    MOST_BLOCKS = 64
    # Numbers of kinds, as in user_rows.
    IMPRESSION = 0
    PURCHASE = 6
    DISLIKE = 7
    # No time.
    NEVER = -1

assert len(SOURCES) == SOURCES_N and SOURCES[0] == "clickstream"
assert bounds.ID_BYTES == ID_BYTES and packed_vector.BLOCK == BLOCK
assert user_rows.MOST_BEHIND == MOST_BEHIND and user_rows.VERSION == 3
assert len(user_rows.KINDS) == N_KINDS
assert user_rows.KINDS[IMPRESSION] == "impression"
assert user_rows.KINDS[PURCHASE] == "purchase" and user_rows.KINDS[DISLIKE] == "dislike"

cdef tuple _KINDS = user_rows.KINDS
cdef dict _NUMBER_OF = {kind: number for number, kind in enumerate(_KINDS)}
#: Where a kind stands among all of them in order: acts of one time and item lie by kind.
cdef uint8_t _RANK[N_KINDS]
cdef bint _IS_TAKING[N_KINDS]
#: The kinds that take back a dislike.
cdef bint _IS_LIKING[N_KINDS]
for _number, _kind in enumerate(_KINDS):
    _RANK[_number] = sorted(_KINDS).index(_kind)
    _IS_TAKING[_number] = _kind in TAKING
    _IS_LIKING[_number] = _kind in ("favorite", "add_to_cart", "purchase")
cdef tuple _BANDS = user_columns.BANDS
cdef dict _BAND_NUMBERS = {band: number for number, band in enumerate(_BANDS)}
# By name they would be looked up for each value that is made.
cdef object _Touch = Touch
cdef object _HistoryItem = HistoryItem
cdef object _Trigger = Trigger
cdef object _Interaction = Interaction
cdef object _encode = msgspec.msgpack.Encoder().encode
cdef object _replace = msgspec.structs.replace
cdef object _NOT_STATED = user_rows.NO_STATED
cdef double _SHORT_MS = SHORT_HALF_LIFE_MS
cdef double _LONG_MS = LONG_HALF_LIFE_MS
cdef int64_t _PERIOD_MS = PERIOD_MS
cdef int64_t _NO_PERIOD = NO_PERIOD
cdef int64_t _LATEST_MS = LATEST_MS
cdef int _SLACK = bounds.SLACK_BYTES
cdef int _ACT_BYTES = bounds.ACT_BYTES
cdef int _STAMP = STAMP_BYTES
#: Powers of the fourth root of two, as the reference takes them.
cdef double _SIZES[256]
for _number, _size in enumerate(packed_vector.SIZES.tolist()):
    _SIZES[_number] = _size
cdef double _QUARTERS[4]
for _number, _size in enumerate(packed_vector.QUARTERS.tolist()):
    _QUARTERS[_number] = _size
cdef object _turns = np.ascontiguousarray(packed_vector.TURNS)
cdef const float[::1] _TURNS = _turns
assert packed_vector.N_TURNS == N_TURNS


# ------------------------------------------------------------------------------ small arithmetic


cdef inline int64_t _floordiv(int64_t a, int64_t b) noexcept:
    """As Python divides, b > 0."""
    cdef int64_t q = a // b
    return q - 1 if a % b < 0 else q


cdef inline double _decay(int64_t age_ms, double half_life_ms) noexcept:
    return pow(0.5, <double>age_ms / half_life_ms)


cdef inline int64_t _ago_of(int64_t at_ms, int64_t base_ms) noexcept:
    if at_ms == 0:
        return 0
    return base_ms - at_ms + 1 if at_ms <= base_ms else base_ms - at_ms


cdef inline int64_t _time_of(int64_t ago, int64_t base_ms) noexcept:
    if ago == 0:
        return 0
    return base_ms - ago + 1 if ago > 0 else base_ms - ago


cdef inline int64_t _fitting(double size) noexcept:
    """Return the least number of a step size that is not below ``size``."""
    cdef int octave
    cdef int64_t quarter = 0
    cdef double mantissa = frexp(size, &octave)
    while quarter < 4 and _QUARTERS[quarter] < mantissa:
        quarter += 1
    return 4 * (<int64_t>octave - 1) + quarter


include "_blake2b.pxi"


include "_msgpack.pxi"


# ------------------------------------------------------------------------------------- the rules


@cython.final
cdef class Limits:
    """What the fold takes of ``Rules``, as numbers."""

    cdef double weights[N_KINDS]
    cdef double long_half_life_ms
    cdef double exclusion_ms
    cdef int64_t history_items, history_texts, event_id_memory, max_future_ms
    cdef int64_t max_state_bytes, cooccurrence_items, text_bytes
    cdef readonly object rules

    def __cinit__(self, rules):
        for number, kind in enumerate(_KINDS):
            self.weights[number] = rules.weights.get(kind, 0.0)
        self.long_half_life_ms = rules.long_half_life_ms
        self.exclusion_ms = rules.purchase_exclusion_ms
        self.history_items = rules.history_items
        self.history_texts = rules.history_texts
        self.event_id_memory = rules.event_id_memory
        self.max_future_ms = rules.max_future_ms
        self.max_state_bytes = rules.max_state_bytes
        self.cooccurrence_items = rules.cooccurrence_items
        self.text_bytes = rules.text_bytes_kept
        self.rules = rules


cdef Limits _last_limits = None


cdef Limits _limits_of(object rules):
    global _last_limits
    if _last_limits is None or _last_limits.rules is not rules:
        _last_limits = Limits(rules)
    return _last_limits


def takes(list events):
    """True for events that ``NativeUser.fold`` knows what to do with: interactions alone."""
    for sourced in events:
        if type(sourced.event) is not _Interaction or sourced.source != "clickstream":
            return False
    return True


# -------------------------------------------------------------------------------- one user's state

cdef struct Act:
    int64_t at_ms
    double weight
    PyObject* item  # a str, owned
    Py_hash_t hash  # its
    uint8_t kind
    uint8_t folded


cdef struct Acted:
    int64_t first_ms, last_ms, first_bought_ms, last_bought_ms
    int64_t n_acts, n_bought, n_priced, n_ratings, n_dislikes
    double spend, short_acts, long_acts, satisfaction
    uint64_t days[DAY_WORDS]


cdef inline bint _same_item(const Act* one, const Act* other) noexcept:
    if one.item == other.item:
        return True
    return one.hash == other.hash and PyUnicode_Compare(<object>one.item, <object>other.item) == 0


cdef int _compared(const Act* one, const Act* other) noexcept:
    """Below, at or above 0, by the fields of an act in their order."""
    cdef int by_item
    if one.at_ms != other.at_ms:
        return -1 if one.at_ms < other.at_ms else 1
    if one.item != other.item:
        by_item = PyUnicode_Compare(<object>one.item, <object>other.item)
        if by_item:
            return by_item
    if one.kind != other.kind:
        return -1 if _RANK[one.kind] < _RANK[other.kind] else 1
    if one.weight != other.weight:
        return -1 if one.weight < other.weight else 1
    return <int>one.folded - <int>other.folded


cdef void _add_day(Acted* a, int64_t day, int64_t newest) noexcept:
    cdef int64_t ahead = day - newest
    cdef int i, words, bits
    cdef bint is_none = True
    for i in range(DAY_WORDS):
        is_none &= a.days[i] == 0
    if is_none:
        a.days[0] = 1
    elif ahead <= 0:
        if ahead > -WINDOW_DAYS:
            a.days[-ahead >> 6] |= <uint64_t>1 << (-ahead & 63)
    elif ahead < WINDOW_DAYS:
        words, bits = <int>(ahead >> 6), <int>(ahead & 63)
        for i in range(DAY_WORDS - 1, -1, -1):
            a.days[i] = a.days[i - words] << bits if i >= words else 0
            if bits and i - words - 1 >= 0:
                a.days[i] |= a.days[i - words - 1] >> (64 - bits)
        a.days[0] |= 1
    else:
        memset(a.days, 0, sizeof(a.days))
        a.days[0] = 1


cdef void _fold_activity(Acted* a, int kind, int64_t at_ms, double spent, bint is_priced) noexcept:
    """As models.activity.fold_activity; ``spent`` is what a purchase cost, where it is known."""
    if kind == IMPRESSION:
        return
    if at_ms >= a.last_ms:
        a.short_acts = a.short_acts * _decay(at_ms - a.last_ms, _SHORT_MS) + 1.0
        a.long_acts = a.long_acts * _decay(at_ms - a.last_ms, _LONG_MS) + 1.0
        a.last_ms = at_ms
    else:
        a.short_acts += _decay(a.last_ms - at_ms, _SHORT_MS)
        a.long_acts += _decay(a.last_ms - at_ms, _LONG_MS)
    if a.first_ms == 0 or at_ms < a.first_ms:
        a.first_ms = at_ms
    if kind == PURCHASE:
        _add_day(a, _floordiv(at_ms, DAY_MS), _floordiv(a.last_bought_ms, DAY_MS))
        if a.first_bought_ms == 0 or at_ms < a.first_bought_ms:
            a.first_bought_ms = at_ms
        if at_ms > a.last_bought_ms:
            a.last_bought_ms = at_ms
        a.n_bought += 1
        if is_priced:
            a.n_priced += 1
            a.spend += spent
    elif kind == DISLIKE:
        a.n_dislikes += 1
    a.n_acts += 1


cdef class _Floats:
    """A vector's numbers, shape (dim,), held while they are looked at."""

    cdef Py_buffer view
    cdef bint is_held
    cdef const float* at
    cdef Py_ssize_t dim

    def __cinit__(self, vector):
        PyObject_GetBuffer(vector, &self.view, PyBUF_FORMAT | PyBUF_STRIDES)
        if self.view.format[0] != c"f" or self.view.format[1] or self.view.ndim != 1 or (
            self.view.shape[0] > 1 and self.view.strides[0] != sizeof(float)
        ):
            PyBuffer_Release(&self.view)
            vector = np.ascontiguousarray(vector, np.float32)
            PyObject_GetBuffer(vector, &self.view, PyBUF_FORMAT | PyBUF_STRIDES)
        self.is_held = True
        self.at, self.dim = <const float*>self.view.buf, self.view.len // sizeof(float)

    def __dealloc__(self):
        if self.is_held:
            PyBuffer_Release(&self.view)


cdef class _Adding:
    """What is to go into the sum of the lasting interest (see bounds.Added)."""

    cdef float* vector  # NULL: nothing yet
    cdef Py_ssize_t dim
    cdef double weight
    cdef int64_t as_of_ms
    cdef double half_life_ms

    def __cinit__(self, double half_life_ms):
        self.half_life_ms = half_life_ms

    def __dealloc__(self):
        free(self.vector)

    cdef int add(self, const float* vector, Py_ssize_t dim, double weight, int64_t at_ms) except -1:
        cdef double old, new
        cdef float factor
        cdef Py_ssize_t i
        if self.vector == NULL:
            self.as_of_ms = at_ms
        self._begin(dim)
        if at_ms > self.as_of_ms:
            old = _decay(at_ms - self.as_of_ms, self.half_life_ms)
            factor = <float>old
            for i in range(dim):
                self.vector[i] = self.vector[i] * factor
            for i in range(dim):
                self.vector[i] = self.vector[i] + vector[i]
            self.weight *= old
            self.as_of_ms = at_ms
        else:
            new = _decay(self.as_of_ms - at_ms, self.half_life_ms)
            factor = <float>new
            for i in range(dim):
                self.vector[i] = self.vector[i] + factor * vector[i]
            weight *= new
        self.weight += weight
        return 0

    cdef int add_share(self, vector, double weight, int64_t age_ms) except -1:
        """Add what is left of an act after so long, to what is of one time anyway."""
        cdef _Floats floats = _Floats(vector)
        cdef double share = weight * _decay(age_ms, self.half_life_ms)
        cdef float factor = <float>share
        cdef Py_ssize_t i
        self._begin(floats.dim)
        for i in range(floats.dim):
            self.vector[i] = self.vector[i] + factor * floats.at[i]
        self.weight += share
        return 0

    cdef int _begin(self, Py_ssize_t dim) except -1:
        if self.vector == NULL:
            self.vector = <float*>calloc(max(dim, 1), sizeof(float))
            if self.vector == NULL:
                raise MemoryError
            self.dim, self.weight = dim, 0.0
        if dim != self.dim:
            raise ValueError(f"vectors of {self.dim} and {dim} dimensions")
        return 0

    cdef void clear(self) noexcept:
        free(self.vector)
        self.vector = NULL
        self.weight, self.as_of_ms = 0.0, 0


cdef bint _has_vector(vectors, item_id) except -1:
    """True where an item has a vector; what a mapping says that it has ``seen`` is found there."""
    cdef PyObject* found
    seen = getattr(vectors, "seen", None)
    if seen is not None:
        found = PyDict_GetItem(seen, item_id)
        if found != NULL:
            return found != <PyObject*>None
    return item_id in vectors


@cython.final
@cython.no_gc
cdef class NativeUser:
    """One user's state; ``pending``, ``recommended_ms`` and ``band`` may be set."""

    cdef int64_t offsets[SOURCES_N]
    cdef Act* acts  # in order
    cdef Py_ssize_t n_acts
    cdef uint8_t* ids
    cdef Py_ssize_t n_ids  # bytes
    cdef bint has_activity
    cdef Acted acted
    # The sum; long_values is None without one.
    cdef bytes long_values, long_steps
    cdef double long_unit, long_weight
    cdef int64_t long_as_of_ms
    # Seldom there, and so as Python has them.
    cdef readonly tuple texts, faded
    cdef readonly object stated
    cdef object region
    cdef int64_t region_ms
    cdef public object pending, band
    cdef public int64_t recommended_ms
    # What a row was last begun with, and how many of the acts that tells; -1 for none.
    cdef bytes base, behind
    cdef int64_t base_ms
    cdef Py_ssize_t n_behind, n_written
    # The columns of the row, while they are known, and the latest of its times.
    cdef bytes body
    cdef int64_t body_ms

    def __cinit__(self):
        self.n_written = -1

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.n_acts):
            Py_DECREF(<object>self.acts[i].item)
        free(self.acts)
        free(self.ids)

    # ---------------------------------------------------------------------------- from and to Python

    @staticmethod
    def of(state, written):
        """Return a state and what is written of it; None where it holds what C cannot."""
        cdef NativeUser user = NativeUser.__new__(NativeUser)
        try:
            user._take(state, written)
        except OverflowError:  # a number that no integer of 64 bits is
            return None
        return user if user._is_usual() else None

    @staticmethod
    def read(bytes row):
        """Return what a row of version 3 tells; None where Python must say what it tells, or what
        is wrong with it."""
        cdef NativeUser user = NativeUser.__new__(NativeUser)
        try:
            return user if user._read(row) and user._is_read() else None
        except UnicodeDecodeError:
            return None

    cdef bint _read(self, bytes row) except -1:
        cdef In src, base
        cdef const uint8_t* raw
        cdef size_t n
        cdef int64_t base_ms, n_columns, ago, band
        cdef int i, mark
        src.at = <const uint8_t*>PyBytes_AS_STRING(row)
        src.end = src.at + PyBytes_GET_SIZE(row)
        src.bad = False
        if PyBytes_GET_SIZE(row) < 3 or src.at[0] != 3:
            return False
        src.at += 2
        n_columns = _read_array(&src)
        if n_columns != 12:
            return False
        base_ms = _read_time(&src)
        raw = _read_bin(&src, &n)
        if src.bad:
            return False
        self.base = PyBytes_FromStringAndSize(<const char*>raw, n)
        if _read_array(&src) != SOURCES_N:
            return False
        for i in range(SOURCES_N):
            self.offsets[i] = _read_int(&src)
        if not self._read_activity(&src, base_ms):
            return False
        raw = _read_bin(&src, &n)
        if src.bad or n % ID_BYTES:
            return False
        self._make_room(0, n)
        if n:
            memcpy(self.ids, raw, n)
        self.n_ids = n
        base.at = <const uint8_t*>PyBytes_AS_STRING(self.base)
        base.end, base.bad = base.at + PyBytes_GET_SIZE(self.base), False
        if not self._read_base(&base) or not self._read_behind(&src):
            return False
        if not self._read_sum(&src, base_ms):
            return False
        mark = _read_mark(&src)
        self.region = None if mark == 0xC0 else _read_str_of(&src, mark)
        ago = _read_time(&src)
        self.region_ms = _time_of(ago, base_ms)
        raw = src.at
        _skip(&src, 0)
        if src.bad:
            return False
        self.pending = None
        if raw[0] != 0xC0:
            try:
                self.pending = user_rows.pending_in((<const char*>raw)[:src.at - raw])
            except user_rows.DAMAGE:
                return False
        self.recommended_ms = _time_of(_read_time(&src), base_ms)
        band = _read_time(&src)
        if src.bad or src.at != src.end or not 0 <= band < 4:
            return False
        self.band = _BANDS[band]
        return True

    cdef bint _read_activity(self, In* src, int64_t base_ms) except -1:
        cdef Acted* a = &self.acted
        cdef int64_t n = _read_array(src)
        cdef size_t n_days
        cdef const uint8_t* days
        if n == 0:
            return not src.bad
        if n != 14:
            return False
        self.has_activity = True
        a.first_ms = _time_of(_read_time(src), base_ms)
        a.last_ms = _time_of(_read_time(src), base_ms)
        a.first_bought_ms = _time_of(_read_time(src), base_ms)
        a.last_bought_ms = _time_of(_read_time(src), base_ms)
        a.n_acts = _read_time(src)
        a.n_bought = _read_time(src)
        a.n_priced = _read_time(src)
        a.n_ratings = _read_time(src)
        a.n_dislikes = _read_time(src)
        a.spend = _read_float(src)
        a.short_acts = _read_float(src)
        a.long_acts = _read_float(src)
        a.satisfaction = _read_float(src)
        days = _read_bin(src, &n_days)
        if src.bad or n_days > 8 * DAY_WORDS:
            return False
        if n_days:
            memcpy(a.days, days, n_days)
        return True

    cdef bint _read_base(self, In* src) except -1:
        """Read what is dear to write; what is seldom there is left to Python."""
        cdef const uint8_t* acts
        cdef const uint8_t* rest
        cdef In columns
        if _read_array(src) != 5:
            return False
        self.base_ms = _read_time(src)
        acts = src.at
        _skip(src, 0)
        rest = src.at
        if src.bad:
            return False
        self.texts, self.faded, self.stated = (), (), _NOT_STATED
        if src.end - rest != 3 or memcmp(rest, b"\x90\x90\xc0", 3) != 0:
            try:
                self.texts, self.faded, self.stated = user_rows.rest_of(self.base)
            except user_rows.DAMAGE:
                return False
        if acts[0] == 0xC0:
            return True
        columns.at, columns.end, columns.bad = acts, rest, False
        return self._read_acts(&columns)

    cdef bint _read_acts(self, In* src) except -1:
        cdef const uint8_t* packed
        cdef const uint8_t* places
        cdef const uint8_t* kinds
        cdef const uint8_t* weights
        cdef size_t n_packed, n_places, n_kinds, n_weights
        cdef int64_t n, n_names, i, at_ms, place, number
        cdef float weight
        cdef Act* act
        cdef list ids, names = []
        if _read_array(src) != 6:
            return False
        packed = _read_bin(src, &n_packed)
        places = _read_bin(src, &n_places)
        kinds = _read_bin(src, &n_kinds)
        n_names = _read_array(src)
        for i in range(n_names):
            if src.bad:
                return False
            names.append(_NUMBER_OF.get(_read_str_of(src, _read_mark(src))))
        weights = _read_bin(src, &n_weights)
        n = _read_array(src)
        if src.bad or n == 0 or None in names or n_weights != <size_t>(4 * n_names):
            return False
        ids = _ids_of(packed, n_packed)
        if ids is None or (n_kinds != <size_t>n and n_kinds != <size_t>(2 * n)):
            return False
        if n_places == 0:
            if len(ids) != n:
                return False
        elif n_places != <size_t>n and n_places != <size_t>(2 * n):
            return False
        self.acts = <Act*>realloc(self.acts, (n + MOST_BEHIND) * sizeof(Act))
        if self.acts == NULL:
            raise MemoryError
        at_ms = self.base_ms
        for i in range(n):
            at_ms = at_ms - _read_time(src) if i == 0 else at_ms + _read_time(src)
            place, number = i, _number_in(kinds, n_kinds, n, i)
            if n_places:
                place = _number_in(places, n_places, n, i)
            if src.bad or place >= len(ids) or number >= 2 * n_names or not 0 <= at_ms <= _LATEST_MS:
                return False
            act = &self.acts[i]
            memcpy(&weight, weights + 4 * (number >> 1), 4)
            act.at_ms, act.weight, act.folded = at_ms, weight, number & 1
            act.kind = names[number >> 1]
            self._hold(act, ids[place])
            self.n_acts += 1
        return src.at == src.end

    cdef bint _read_behind(self, In* src) except -1:
        """Read the acts that are told one by one, and tell them again for the next row."""
        cdef int64_t n = _read_array(src), i, number, bits
        cdef uint32_t narrow
        cdef float weight
        cdef Act* act
        cdef Out out
        if src.bad or n > MOST_BEHIND:
            return False
        if self.n_acts == 0:
            self.acts = <Act*>realloc(self.acts, MOST_BEHIND * sizeof(Act))
            if self.acts == NULL:
                raise MemoryError
        self.n_written, self.behind, self.n_behind = self.n_acts, b"", 0
        for i in range(n):
            if _read_array(src) != 4:
                return False
            act = &self.acts[self.n_acts]
            act.at_ms = self.base_ms + _read_time(src)
            item_id = _read_str_of(src, _read_mark(src))
            number, bits = _read_int(src), _read_int(src)
            if src.bad or not 0 <= number < 2 * N_KINDS or not 0 <= bits < <int64_t>1 << 32:
                return False
            narrow = <uint32_t>bits
            memcpy(&weight, &narrow, 4)
            act.weight, act.kind, act.folded = weight, number >> 1, number & 1
            self._hold(act, item_id)
            self.n_acts += 1
        if n:
            out.at, out.n, out.room = NULL, 0, 0
            try:
                self._write_behind(&out)
            finally:
                free(out.at)
        return True

    cdef bint _read_sum(self, In* src, int64_t base_ms) except -1:
        cdef int mark = _read_mark(src)
        cdef const uint8_t* head
        cdef const uint8_t* values
        cdef size_t n_head, n_values
        cdef float unit, weight
        cdef uint16_t n_steps
        if mark == 0xC0:
            return True
        if mark != 0x93:
            return False
        head = _read_bin(src, &n_head)
        values = _read_bin(src, &n_values)
        self.long_as_of_ms = base_ms - _read_time(src)
        if src.bad or n_head < 10:
            return False
        memcpy(&unit, head, 4)
        memcpy(&weight, head + 4, 4)
        memcpy(&n_steps, head + 8, 2)
        if n_head != <size_t>(10 + n_steps):
            return False
        self.long_unit, self.long_weight = unit, weight
        self.long_steps = PyBytes_FromStringAndSize(<const char*>head + 10, n_steps)
        self.long_values = PyBytes_FromStringAndSize(<const char*>values, n_values)
        return True

    cdef bint _is_read(self):
        """False for what ``user_rows.read_row`` has more to say of."""
        cdef int64_t latest = _LATEST_MS
        if not self._is_usual():
            return False
        for text in self.texts:
            if not 0 <= text.event_time_ms <= latest:
                return False
        return (
            0 <= self.region_ms <= latest
            and 0 <= self.recommended_ms <= latest
            and (self.long_values is None or 0 <= self.long_as_of_ms <= latest)
            and (
                self.n_acts == 0
                or (self.acts[0].at_ms >= 0 and self.acts[self.n_acts - 1].at_ms <= latest)
            )
        )

    cdef int _take(self, state, written) except -1:
        cdef int i
        cdef Act* act
        cdef bytes ids = state.event_ids
        if len(state.offsets) != SOURCES_N:
            raise OverflowError
        for i in range(SOURCES_N):
            self.offsets[i] = state.offsets[i]
        self._make_room(len(state.acts), len(ids))
        for one in state.acts:
            number = _NUMBER_OF.get(one.kind)
            if number is None:
                raise OverflowError
            act = &self.acts[self.n_acts]
            act.at_ms, act.weight = one.event_time_ms, one.weight
            act.kind, act.folded = number, one.folded
            self._hold(act, one.item_id)
            self.n_acts += 1
        self.n_ids = len(ids)
        memcpy(self.ids, PyBytes_AS_STRING(ids), self.n_ids)
        if state.activity is not None:
            self._take_activity(state.activity)
        if state.long is not None:
            self.long_values, self.long_steps = state.long.values, state.long.steps
            self.long_unit, self.long_weight = state.long.unit, state.long.weight
            self.long_as_of_ms = state.long.as_of_ms
        self.texts, self.faded, self.stated = state.texts, state.faded, state.stated
        self.region, self.region_ms = state.seen_region, state.seen_region_ms
        self.pending, self.band = state.pending, state.band
        self.recommended_ms = state.recommended_ms
        followed = None if written is None else written.followed_by(state)
        if followed is not None:
            self.base, self.base_ms = followed.base, followed.base_ms
            self.behind, self.n_behind = b"".join(followed.behind), len(followed.behind)
            self.n_written = self.n_acts
        return 0

    cdef int _take_activity(self, activity) except -1:
        cdef Acted* a = &self.acted
        cdef bytes days = activity.purchase_days.to_bytes(8 * DAY_WORDS, "little")
        self.has_activity = True
        (a.first_ms, a.last_ms, a.first_bought_ms, a.last_bought_ms, a.n_acts, a.n_bought,
         a.n_priced, a.n_ratings, a.n_dislikes, a.spend, a.short_acts, a.long_acts,
         a.satisfaction) = activity[:13]
        memcpy(a.days, PyBytes_AS_STRING(days), 8 * DAY_WORDS)
        return 0

    cdef inline int _hold(self, Act* act, item_id) except -1:
        act.hash = PyObject_Hash(item_id)
        act.item = <PyObject*>item_id
        Py_INCREF(item_id)
        return 0

    cdef bint _is_usual(self) except -1:
        """False for what no fold leaves: times that no clock has, acts out of order."""
        cdef Py_ssize_t i
        cdef Acted* a = &self.acted
        cdef int64_t most = <int64_t>1 << 53
        for i in range(self.n_acts):
            if not -most < self.acts[i].at_ms < most or not isfinite(<float>self.acts[i].weight):
                return False
            if i and _compared(&self.acts[i - 1], &self.acts[i]) >= 0:
                return False
        if self.pending is not None and not (
            -most < self.pending.partition < most
            and -most < self.pending.offset < most * 64
            and -most < self.pending.event_time_ms < most
        ):
            return False
        for i in range(1, len(self.faded)):
            if not self.faded[i - 1].period < self.faded[i].period:
                return False
        for i in range(SOURCES_N):
            if not -most < self.offsets[i] < most * 64:
                return False
        if self.has_activity and not (
            -most < a.first_ms < most and -most < a.last_ms < most
            and -most < a.first_bought_ms < most and -most < a.last_bought_ms < most
            and 0 <= a.n_acts < most and 0 <= a.n_bought < most and 0 <= a.n_priced < most
            and 0 <= a.n_ratings < most and 0 <= a.n_dislikes < most
        ):
            return False
        return (
            self.n_ids % ID_BYTES == 0
            and -most < self.region_ms < most
            and -most < self.recommended_ms < most
            and (
                self.long_values is None
                or (-most < self.long_as_of_ms < most and isfinite(self.long_weight))
            )
        )

    @property
    def personalize(self):
        return self.stated.personalize

    @property
    def activity(self):
        """What churn needs of the user's acts, None without any."""
        cdef Acted* a = &self.acted
        if not self.has_activity:
            return None
        days = int.from_bytes((<char*>a.days)[:8 * DAY_WORDS], "little")
        return Activity(a.first_ms, a.last_ms, a.first_bought_ms, a.last_bought_ms, a.n_acts,
                        a.n_bought, a.n_priced, a.n_ratings, a.n_dislikes, a.spend, a.short_acts,
                        a.long_acts, a.satisfaction, days)

    @property
    def has_acted(self):
        return self.has_activity

    @property
    def long(self):
        """The sum of the lasting interest, None without one."""
        if self.long_values is None:
            return None
        return Interest(
            self.long_values, self.long_steps, self.long_unit, self.long_weight, self.long_as_of_ms
        )

    @property
    def seen_region(self):
        return self.region

    def state(self):
        """Return the whole of it as Python has it."""
        cdef Py_ssize_t i
        cdef Act* act
        acts = []
        for i in range(self.n_acts):
            act = &self.acts[i]
            acts.append(
                PyAct(act.at_ms, <object>act.item, _KINDS[act.kind], act.weight, act.folded == 1)
            )
        return UserState(
            tuple([self.offsets[i] for i in range(SOURCES_N)]), self.long, tuple(acts), self.texts,
            self.faded, self.activity, (<char*>self.ids)[:self.n_ids] if self.n_ids else b"",
            self.stated, self.region, self.region_ms, self.pending, self.recommended_ms, self.band,
        )

    def written(self):
        """Return what the row begins with, None where none was written yet."""
        if self.n_written < 0:
            return None
        return user_rows.written_of(self.state(), self.base_ms, self.base, self.n_behind)

    def copy(self):
        return self._copy(0)

    cdef NativeUser _copy(self, Py_ssize_t n_more):
        """Return the same with room for some acts more."""
        cdef NativeUser user = NativeUser.__new__(NativeUser)
        cdef Py_ssize_t i
        user._make_room(self.n_acts + n_more, self.n_ids + n_more * ID_BYTES)
        memcpy(user.offsets, self.offsets, sizeof(self.offsets))
        if self.n_acts:
            memcpy(user.acts, self.acts, self.n_acts * sizeof(Act))
        for i in range(self.n_acts):
            Py_INCREF(<object>user.acts[i].item)
        user.n_acts = self.n_acts
        if self.n_ids:
            memcpy(user.ids, self.ids, self.n_ids)
        user.n_ids = self.n_ids
        user.has_activity, user.acted = self.has_activity, self.acted
        user.long_values, user.long_steps = self.long_values, self.long_steps
        user.long_unit, user.long_weight = self.long_unit, self.long_weight
        user.long_as_of_ms = self.long_as_of_ms
        user.texts, user.faded, user.stated = self.texts, self.faded, self.stated
        user.region, user.region_ms = self.region, self.region_ms
        user.pending, user.band = self.pending, self.band
        user.recommended_ms = self.recommended_ms
        user.base, user.behind, user.base_ms = self.base, self.behind, self.base_ms
        user.n_behind, user.n_written = self.n_behind, self.n_written
        return user

    cdef int _make_room(self, Py_ssize_t n_acts, Py_ssize_t n_ids) except -1:
        """Allocate; called once for each object."""
        self.acts = <Act*>malloc(max(n_acts, 1) * sizeof(Act))
        self.ids = <uint8_t*>malloc(max(n_ids, 1))
        if self.acts == NULL or self.ids == NULL:
            raise MemoryError
        return 0

    # -------------------------------------------------------------------------------------- the fold

    def fold(self, list events, vectors, rules):
        """Return the user after the events, their outcomes, touches and the trigger, how many event
        times were cut, and whether the state had to be. See fold.fold."""
        cdef Limits limits = _limits_of(rules)
        cdef NativeUser user = self._copy(len(events))
        cdef _Adding added = _Adding(limits.long_half_life_ms)
        cdef list outcomes = [], touches = []
        cdef int64_t offset, at_ms, timestamp_ms, n_future = 0, last_ms = 0
        cdef object last = None
        cdef int kind
        cdef double weight
        user.has_activity = True
        for sourced in events:
            offset = sourced.offset
            if offset <= user.offsets[0]:
                outcomes.append("repeat")
                continue
            user.offsets[0] = offset
            event = sourced.event
            if user._knows(event.event_id):
                outcomes.append("duplicate")
                continue
            at_ms, timestamp_ms = event.event_time_ms, sourced.timestamp_ms
            if timestamp_ms >= 0 and at_ms > timestamp_ms + limits.max_future_ms:
                n_future += 1
                at_ms = timestamp_ms
            kind = _NUMBER_OF[event.type]
            weight = limits.weights[kind]
            item_id = event.item_id
            user._see(event.context, at_ms, limits)
            if kind == IMPRESSION:
                if _has_vector(vectors, item_id):
                    _add_weighted(added, vectors[item_id], weight, at_ms)
                    outcomes.append("folded")
                else:
                    outcomes.append("unknown_item")
                continue
            if kind == PURCHASE:
                user._buy(event, at_ms)
            else:
                _fold_activity(&user.acted, kind, at_ms, 0.0, False)
            user._act(item_id, kind, weight, at_ms, limits, touches)
            outcomes.append("folded" if _has_vector(vectors, item_id) else "unknown_item")
            last, last_ms = sourced, at_ms
        trigger = None
        if last is not None:
            trigger = _Trigger(
                topic=last.source, partition=last.partition, offset=last.offset,
                event_id=last.event.event_id, event_time_ms=last_ms,
            )
        is_trimmed = user._bound(self, added, vectors, limits, trigger)
        return user, outcomes, touches, trigger, n_future, is_trimmed

    cdef bint _knows(self, event_id) except -1:
        cdef uint8_t digest[ID_BYTES]
        cdef Py_ssize_t i
        _event_hash(event_id, digest)
        for i in range(0, self.n_ids, ID_BYTES):
            if memcmp(self.ids + i, digest, ID_BYTES) == 0:
                return True
        memcpy(self.ids + self.n_ids, digest, ID_BYTES)
        self.n_ids += ID_BYTES
        return False

    cdef int _see(self, context, int64_t at_ms, Limits limits) except -1:
        """Note the region of an act, if it is the latest that has one."""
        if context is None or at_ms < self.region_ms:
            return 0
        region = context.region
        if region:
            if 4 * PyUnicode_GET_LENGTH(region) > limits.text_bytes:
                region = region.encode()[:limits.text_bytes].decode(errors="ignore")
            self.region, self.region_ms = region, at_ms
        return 0

    cdef int _buy(self, event, int64_t at_ms) except -1:
        price, quantity = event.price, event.quantity
        cdef double spent = 0.0
        if price is not None:
            spent = <double>price * (1.0 if quantity is None else <double>quantity)
        _fold_activity(&self.acted, PURCHASE, at_ms, spent, price is not None)
        return 0

    cdef int _act(self, item_id, int kind, double weight, int64_t at_ms, Limits limits,
                  list touches) except -1:
        """Keep an act, and note that its item was taken."""
        cdef Act act
        cdef Py_ssize_t low, high, middle
        act.at_ms, act.weight, act.kind, act.folded = at_ms, weight, kind, 0
        act.item, act.hash = <PyObject*>item_id, PyObject_Hash(item_id)
        if weight > 0 and _IS_TAKING[kind]:
            touches.append(self._touch(&act, limits))
        low = high = self.n_acts
        if self.n_acts and self.acts[self.n_acts - 1].at_ms >= at_ms:
            low = 0
        while low < high:
            middle = (low + high) // 2
            if _compared(&self.acts[middle], &act) < 0:
                low = middle + 1
            else:
                high = middle
        if low < self.n_acts:
            act.folded = self.acts[low].folded
            if _compared(&self.acts[low], &act) == 0:
                return 0
            act.folded = 0
        memmove(self.acts + low + 1, self.acts + low, (self.n_acts - low) * sizeof(Act))
        self.acts[low] = act
        Py_INCREF(item_id)
        self.n_acts += 1
        return 0

    cdef object _touch(self, Act* act, Limits limits):
        cdef Py_ssize_t i, j, n_others = 0
        cdef Act* before
        cdef int64_t most = limits.cooccurrence_items
        cdef Act** found
        cdef tuple others = ()
        for i in range(self.n_acts):
            before = &self.acts[i]
            if before.weight > 0 and _IS_TAKING[before.kind] and _same_item(before, act):
                break
        else:
            # The latest first, each once.
            found = <Act**>malloc(max(self.n_acts, 1) * sizeof(Act*))
            if found == NULL:
                raise MemoryError
            for i in range(self.n_acts - 1, -1, -1):
                if n_others == most:
                    break
                before = &self.acts[i]
                if before.weight <= 0 or not _IS_TAKING[before.kind]:
                    continue
                for j in range(n_others):
                    if _same_item(found[j], before):
                        break
                else:
                    found[n_others] = before
                    n_others += 1
            others = tuple([<object>found[j].item for j in range(n_others)])
            free(found)
            return _Touch(<object>act.item, others, act.weight, True, act.at_ms,
                         self.stated.region or self.region)
        return _Touch(<object>act.item, (), act.weight, False, act.at_ms,
                     self.stated.region or self.region)

    # ------------------------------------------------------------------------------------ the bounds

    cdef bint _bound(self, NativeUser before, _Adding added, vectors, Limits limits,
                     trigger) except -1:
        """Cut to the counts and the bytes of the rules, and write the columns of the row."""
        cdef Py_ssize_t n_too_many
        self._keep(limits.history_items, limits.history_texts, added, vectors, limits)
        n_too_many = self.n_ids - ID_BYTES * limits.event_id_memory
        if n_too_many > 0:
            self._drop_ids(n_too_many)
        return self._cut(before, added, vectors, limits, trigger or self.pending)

    cdef void _drop_ids(self, Py_ssize_t n) noexcept:
        memmove(self.ids, self.ids + n, self.n_ids - n)
        self.n_ids -= n

    cdef bint _cut(self, NativeUser before, _Adding added, vectors, Limits limits,
                   pending) except -1:
        cdef int64_t room = limits.max_state_bytes - _STAMP, over, freed
        self._write(before)
        over = self._longest(pending) - room
        if over <= 0:
            return False
        over += _SLACK
        for what, least in bounds.STEPS:
            while over > 0:
                freed = self._give_way(what, least, over, added, vectors, limits)
                if freed < 0:
                    break
                self.body = None
                over -= freed
                if over <= 0:  # as far as can be told without writing it
                    self._write(None)
                    over = self._longest(pending) - room
        if self.body is None:
            self._write(None)
        return True

    cdef int64_t _give_way(self, what, int64_t least, int64_t over, _Adding added, vectors,
                           Limits limits) except -2:
        """Take a step; return about the bytes it freed, -1 when there is nothing to give."""
        cdef Py_ssize_t n = self.n_acts, i, n_kept, n_chars = 0
        cdef double mean
        if what == "acts":
            if n <= least:
                return -1
            for i in range(n):
                n_chars += PyUnicode_GET_LENGTH(<object>self.acts[i].item)
            mean = <double>n_chars / <double>n + _ACT_BYTES
            n_kept = max(least, n - 1 - <int64_t>(<double>over / mean))
            self._keep(n_kept, len(self.texts), added, vectors, limits)
            return <int64_t>(<double>(n - n_kept) * mean) + 1
        if what == "event_ids":
            n = self.n_ids // ID_BYTES
            if n <= least:
                return -1
            n_kept = max(least, n - 1 - over // ID_BYTES)
            self._drop_ids((n - n_kept) * ID_BYTES)
            return (n - n_kept) * ID_BYTES
        if what == "texts":
            if len(self.texts) <= least:
                return -1
            freed = len(self.texts[0].vector) + len(self.texts[0].text)
            self._keep(n, len(self.texts) - 1, added, vectors, limits)
            return freed
        if what == "faded":
            if not self._has_finer(least):
                return -1
            shorter = bounds.shorter(self.faded, least)
            if not shorter:
                return -1
            freed = bounds.n_bytes(self.faded) - bounds.n_bytes(shorter)
            self.faded = shorter
            return freed
        if what == "interests":
            vector = self.stated.interests_vector
            if not vector:
                return -1
            self.stated = _replace(self.stated, interests_vector=b"")
            return len(vector)
        if self.long_values is None:
            return -1
        freed = len(self.long_values)
        self.long_values = self.long_steps = None
        return freed

    cdef int _keep(self, int64_t n_acts, int64_t n_texts, _Adding added, vectors,
                   Limits limits) except -1:
        """Keep the newest acts and searches; see bounds."""
        cdef Py_ssize_t n_gone = max(self.n_acts - n_acts, 0), i
        cdef Py_ssize_t n_gone_texts = max(len(self.texts) - n_texts, 0)
        cdef bint is_waiting = False
        for i in range(n_gone):
            if not self.acts[i].folded and _has_vector(vectors, <object>self.acts[i].item):
                is_waiting = True
                break
        if not is_waiting and n_gone_texts:
            is_waiting = not all([text.folded for text in self.texts[:n_gone_texts]])
        if is_waiting:
            self._settle(added, vectors)
        if n_gone or n_gone_texts:
            self._fade(n_gone, limits)
            self.texts = self.texts[n_gone_texts:]
            for i in range(n_gone):
                Py_DECREF(<object>self.acts[i].item)
            self.n_acts -= n_gone
            memmove(self.acts, self.acts + n_gone, self.n_acts * sizeof(Act))
        if added.vector != NULL:
            self._sum_up(added)
        return 0

    cdef int _fade(self, Py_ssize_t n_gone, Limits limits) except -1:
        """Remember as hashes what may not be recommended of the acts that go."""
        cdef Py_ssize_t i
        cdef Act* act
        cdef list left = []
        for i in range(n_gone):
            act = &self.acts[i]
            if act.kind == PURCHASE:
                left.append((_floordiv(act.at_ms, _PERIOD_MS), <object>act.item))
            elif act.kind == DISLIKE:
                left.append((_NO_PERIOD, <object>act.item))
        if left or self.faded:
            newest_ms = self.acts[self.n_acts - 1].at_ms if self.n_acts else 0
            for period, item_id in left:
                self.faded = _faded_with(self.faded, period, item_id)
            if self._has_older(newest_ms, limits.exclusion_ms):
                self.faded = bounds.without_past(self.faded, newest_ms, limits.exclusion_ms)
        return 0

    cdef bint _has_finer(self, int64_t bits) except -1:
        """True where a set of ``faded`` takes more bits for a hash."""
        for one in self.faded:
            if <int64_t>one.bits > bits:
                return True
        return False

    cdef bint _has_older(self, int64_t newest_ms, double exclusion_ms) except -1:
        """True where a period of ``faded`` is over."""
        cdef int64_t oldest = _floordiv(<int64_t>(newest_ms - exclusion_ms), _PERIOD_MS), period
        for one in self.faded:
            period = one.period
            if period < oldest and period != _NO_PERIOD:
                return True
        return False

    cdef int _settle(self, _Adding added, vectors) except -1:
        """Put all acts and searches that wait, and can, into the sum."""
        cdef Py_ssize_t i
        cdef Act* act
        cdef int64_t newest_ms = 0
        cdef bint is_any = False
        cdef list found = [], texts = []
        cdef _Adding summed = _Adding(added.half_life_ms)
        for i in range(self.n_acts):
            act = &self.acts[i]
            if not act.folded and _has_vector(vectors, <object>act.item):
                found.append(vectors[<object>act.item])
                newest_ms = max(newest_ms, act.at_ms) if is_any else act.at_ms
                is_any = True
            else:
                found.append(None)
        for text in self.texts:
            if not text.folded:
                texts.append(text)
                newest_ms = max(newest_ms, <int64_t>text.event_time_ms) if is_any \
                    else <int64_t>text.event_time_ms
                is_any = True
        if not is_any:
            return 0
        for i in range(self.n_acts):
            act = &self.acts[i]
            if found[i] is not None:
                summed.add_share(found[i], act.weight, newest_ms - act.at_ms)
                act.folded = 1
        if texts:
            for text in texts:
                summed.add_share(text.array(), text.weight, newest_ms - text.event_time_ms)
            self.texts = tuple([_replace(text, folded=True) for text in self.texts])
        added.add(summed.vector, summed.dim, summed.weight, newest_ms)
        return 0

    cdef int _sum_up(self, _Adding added) except -1:
        """Put what was added into the sum, rounded; see bounds.Added.into and PackedSum."""
        cdef int64_t as_of_ms = added.as_of_ms, turn = 0
        cdef double old, new, weight = added.weight, unit
        cdef Py_ssize_t i
        for i in range(SOURCES_N):
            turn += self.offsets[i]
        if self.long_values is None:
            summed = packed_vector.PackedSum.of(_array_of(added), turn)
        else:
            as_of_ms = max(as_of_ms, self.long_as_of_ms)
            old = _decay(as_of_ms - self.long_as_of_ms, added.half_life_ms)
            new = _decay(as_of_ms - added.as_of_ms, added.half_life_ms)
            for i in range(added.dim):
                added.vector[i] = added.vector[i] * <float>new
            unit = <float>(self.long_unit * old)
            weight = self.long_weight * old + added.weight * new
            summed = None
            if not self._plus(added, unit, turn):
                packed = packed_vector.PackedSum(self.long_values, self.long_steps, unit)
                summed = packed.plus(_array_of(added), turn)
        if summed is not None:
            self.long_values, self.long_steps = summed.values, summed.steps
            self.long_unit = summed.unit
        self.long_weight, self.long_as_of_ms = <float>weight, as_of_ms
        added.clear()
        return 0

    cdef bint _plus(self, _Adding added, double unit, int64_t turn) except -1:
        """Add to the sum, now in steps of ``unit``; False where Python must do it."""
        cdef Py_ssize_t dim = added.dim, n_blocks = (added.dim + BLOCK - 1) // BLOCK
        if (
            not unit > 0 or dim == 0 or dim > N_TURNS or n_blocks > MOST_BLOCKS
            or PyBytes_GET_SIZE(self.long_values) != dim
            or PyBytes_GET_SIZE(self.long_steps) != n_blocks
        ):
            return False
        values = self._rounded(added, unit, turn)
        if values is None:
            return self._anew(added, unit, turn)
        self.long_values, self.long_unit = values, unit
        return True

    cdef bytes _rounded(self, _Adding added, double unit, int64_t turn):
        """Return the values with what was added; None where blocks need new steps."""
        cdef Py_ssize_t dim = added.dim, i, b, n_blocks = (added.dim + BLOCK - 1) // BLOCK
        cdef const uint8_t* steps = <const uint8_t*>PyBytes_AS_STRING(self.long_steps)
        cdef const int8_t* held = <const int8_t*>PyBytes_AS_STRING(self.long_values)
        cdef int8_t* made
        cdef double size, value, largest
        cdef Py_ssize_t start = <Py_ssize_t>(((turn % N_TURNS) + N_TURNS) % N_TURNS)
        values = PyBytes_FromStringAndSize(NULL, dim)
        made = <int8_t*>PyBytes_AS_STRING(values)
        for b in range(n_blocks):
            size, largest = unit * _SIZES[steps[b]], 0.0
            for i in range(b * BLOCK, min((b + 1) * BLOCK, dim)):
                value = held[i] + floor(<double>added.vector[i] / size + <double>_TURNS[start + i])
                if not fabs(value) <= 127:
                    return None
                largest = max(largest, fabs(value))
                made[i] = <int8_t>value
            if largest < 25:
                return None
        return values

    cdef bint _anew(self, _Adding added, double unit, int64_t turn) except -1:
        """Add, and give new steps to the blocks that need them; False as ``_plus``."""
        cdef Py_ssize_t dim = added.dim, i, b, n_blocks = (added.dim + BLOCK - 1) // BLOCK
        cdef const uint8_t* steps = <const uint8_t*>PyBytes_AS_STRING(self.long_steps)
        cdef const int8_t* held = <const int8_t*>PyBytes_AS_STRING(self.long_values)
        cdef Py_ssize_t start = <Py_ssize_t>(((turn % N_TURNS) + N_TURNS) % N_TURNS)
        cdef double size, exact, largest
        cdef bint is_new[MOST_BLOCKS]
        cdef int64_t exponents[MOST_BLOCKS]
        cdef int64_t most = 0, lowest = 0
        cdef int8_t* made
        cdef uint8_t* made_steps
        for b in range(n_blocks):
            size, largest = unit * _SIZES[steps[b]], 0.0
            for i in range(b * BLOCK, min((b + 1) * BLOCK, dim)):
                exact = held[i] * size + <double>added.vector[i]
                if not isfinite(exact):
                    return False
                largest = max(largest, fabs(exact))
            is_new[b] = largest > 126 * size or largest < 25 * size
            exponents[b] = _fitting(max(largest, 1e-30) / (100 * unit)) if is_new[b] else steps[b]
            most = exponents[b] if b == 0 else max(most, exponents[b])
        for b in range(n_blocks):
            # What is far below the largest block is nothing beside it.
            exponents[b] = max(exponents[b], most - 255)
            lowest = exponents[b] if b == 0 else min(lowest, exponents[b])
        values = PyBytes_FromStringAndSize(NULL, dim)
        new_steps = PyBytes_FromStringAndSize(NULL, n_blocks)
        made, made_steps = <int8_t*>PyBytes_AS_STRING(values), <uint8_t*>PyBytes_AS_STRING(new_steps)
        self.long_unit = <float>(unit * pow(2.0, lowest / 4.0))
        for b in range(n_blocks):
            made_steps[b] = <uint8_t>(exponents[b] - lowest)
            size = self.long_unit * _SIZES[made_steps[b]]
            for i in range(b * BLOCK, min((b + 1) * BLOCK, dim)):
                if is_new[b]:
                    exact = held[i] * (unit * _SIZES[steps[b]]) + <double>added.vector[i]
                    exact = floor(exact / size + <double>_TURNS[start + i])
                else:
                    exact = held[i] + floor(<double>added.vector[i] / size + <double>_TURNS[start + i])
                made[i] = <int8_t>max(-127.0, min(127.0, exact))
        self.long_values, self.long_steps = values, new_steps
        return True

    # --------------------------------------------------------------------------------------- the row

    def row(self):
        """Return the row of the state."""
        cdef Out out
        cdef bytes body
        if self.body is None:
            self._write(self)
        body = self.body
        out.at, out.n, out.room = NULL, 0, 0
        try:
            _room(&out, PyBytes_GET_SIZE(body) + 128)
            out.at[0], out.at[1], out.at[2], out.n = 3, self.pending is not None, 0x9C, 3
            _raw(&out, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
            _write_pending(&out, self.pending)
            _int(&out, _ago_of(self.recommended_ms, self.body_ms))
            _int(&out, _BAND_NUMBERS[self.band])
            # It is written again from what is kept, should it be asked for again.
            self.body = None
            return PyBytes_FromStringAndSize(<char*>out.at, out.n)
        finally:
            free(out.at)

    cdef int64_t _longest(self, pending) except -1:
        """Return what the row takes at most with ``pending`` due, and once that is done."""
        cdef Out out
        out.at, out.n, out.room = NULL, 0, 0
        try:
            _write_pending(&out, pending)
            _int(&out, _ago_of(self.recommended_ms, self.body_ms))
            return 3 + PyBytes_GET_SIZE(self.body) + max(<int64_t>out.n, 10) + 1
        finally:
            free(out.at)

    cdef bint _follows(self, NativeUser before) except -1:
        """True where what is written of the state before, and a few acts more, tell this one."""
        cdef Py_ssize_t n = self.n_written, i
        if before is None or n < 0 or self.n_acts < n:
            return False
        if self.n_behind + self.n_acts - n > MOST_BEHIND:
            return False
        if before is not self:
            for i in range(n):
                if _compared(&self.acts[i], &before.acts[i]) != 0:
                    return False
        return (
            (self.texts is before.texts or self.texts == before.texts)
            and (self.faded is before.faded or self.faded == before.faded)
            and (self.stated is before.stated or self.stated == before.stated)
        )

    cdef int _write(self, NativeUser before) except -1:
        """Write the columns of the body; see user_rows.to_body."""
        cdef Out out
        cdef int64_t base_ms = 0
        out.at, out.n, out.room = NULL, 0, 0
        if not self._follows(before):
            self._write_base()
        try:
            if self.n_acts > self.n_written:
                self._write_behind(&out)
            out.n = 0
            if self.n_acts:
                base_ms = max(base_ms, self.acts[self.n_acts - 1].at_ms)
            if self.has_activity:
                base_ms = max(base_ms, self.acted.last_ms)
            if self.long_values is not None:
                base_ms = max(base_ms, self.long_as_of_ms)
            base_ms = max(base_ms, self.region_ms)
            self._write_body(&out, base_ms)
            self.body_ms = base_ms
            self.body = PyBytes_FromStringAndSize(<char*>out.at, out.n)
        finally:
            free(out.at)
        return 0

    cdef int _write_behind(self, Out* out) except -1:
        """Tell the acts that are not written yet one by one."""
        cdef Py_ssize_t i
        cdef Act* act
        cdef float weight
        cdef uint32_t bits
        _bytes_raw(out, self.behind)
        for i in range(self.n_written, self.n_acts):
            act = &self.acts[i]
            weight = <float>act.weight
            memcpy(&bits, &weight, 4)
            _array(out, 4)
            _int(out, act.at_ms - self.base_ms)
            _str(out, <object>act.item)
            _int(out, act.kind << 1 | act.folded)
            _int(out, bits)
        self.behind = PyBytes_FromStringAndSize(<char*>out.at, out.n)
        self.n_behind += self.n_acts - self.n_written
        self.n_written = self.n_acts
        return 0

    cdef int _write_body(self, Out* out, int64_t base_ms) except -1:
        cdef Py_ssize_t i
        cdef Acted* a = &self.acted
        cdef Py_ssize_t n_days = 8 * DAY_WORDS
        cdef float unit, weight
        cdef uint16_t n_steps
        _int(out, base_ms)
        _bytes(out, self.base)
        _array(out, SOURCES_N)
        for i in range(SOURCES_N):
            _int(out, self.offsets[i])
        if self.has_activity:
            _array(out, 14)
            _int(out, _ago_of(a.first_ms, base_ms))
            _int(out, _ago_of(a.last_ms, base_ms))
            _int(out, _ago_of(a.first_bought_ms, base_ms))
            _int(out, _ago_of(a.last_bought_ms, base_ms))
            _int(out, a.n_acts)
            _int(out, a.n_bought)
            _int(out, a.n_priced)
            _int(out, a.n_ratings)
            _int(out, a.n_dislikes)
            _float(out, a.spend)
            _float(out, a.short_acts)
            _float(out, a.long_acts)
            _float(out, a.satisfaction)
            while n_days and (<uint8_t*>a.days)[n_days - 1] == 0:
                n_days -= 1
            _bin(out, a.days, n_days)
        else:
            _array(out, 0)
        _bin(out, self.ids, self.n_ids)
        _array(out, self.n_behind)
        _bytes_raw(out, self.behind)
        if self.long_values is None:
            _nil(out)
        else:
            _array(out, 3)
            unit, weight = <float>self.long_unit, <float>self.long_weight
            n_steps = <uint16_t>PyBytes_GET_SIZE(self.long_steps)
            _head(out, 10 + n_steps, 0, 0, 0xC4, 1)
            _raw(out, &unit, 4)
            _raw(out, &weight, 4)
            _raw(out, &n_steps, 2)
            _raw(out, PyBytes_AS_STRING(self.long_steps), n_steps)
            _bytes(out, self.long_values)
            _int(out, base_ms - self.long_as_of_ms)
        if self.region is None:
            _nil(out)
        else:
            _str(out, self.region)
        _int(out, _ago_of(self.region_ms, base_ms))
        return 0

    cdef int _write_base(self) except -1:
        """Write all acts, texts and statements anew; see user_rows."""
        cdef Out out
        cdef int64_t base_ms = self.acts[self.n_acts - 1].at_ms if self.n_acts else 0
        texts = _encode([user_columns.text_columns(text, base_ms) for text in self.texts]) \
            if self.texts else b"\x90"
        faded = _encode(self.faded) if self.faded else b"\x90"
        stated = self.stated
        told = b"\xc0" if stated is _NOT_STATED or stated == _NOT_STATED else _encode(stated)
        out.at, out.n, out.room = NULL, 0, 0
        try:
            _array(&out, 5)
            _int(&out, base_ms)
            if self.n_acts:
                _write_acts(&out, self.acts, self.n_acts, base_ms)
            else:
                _nil(&out)
            _bytes_raw(&out, texts)
            _bytes_raw(&out, faded)
            _bytes_raw(&out, told)
            self.base = PyBytes_FromStringAndSize(<char*>out.at, out.n)
        finally:
            free(out.at)
        self.base_ms, self.behind, self.n_behind = base_ms, b"", 0
        self.n_written = self.n_acts
        return 0


# ---------------------------------------------------------------------------------- for profiles

cdef struct Item:
    # What a user did to an item; ``latest`` is the last act, times are NEVER where there is none.
    const Act* latest
    int64_t bought_ms, disliked_ms, liked_ms
    double best, worst
    bint is_repeated


def acts_of(list users, double oldest_bought_ms):
    """Return the acts of users in columns: the fields of profiles._Acts.

    Bought of late is what was bought after ``oldest_bought_ms``.
    """
    cdef NativeUser user
    cdef Py_ssize_t n = 0, most = 0, number, i, n_places = 1, place, n_items
    cdef int32_t* places
    cdef Item* items
    cdef Item* item
    cdef Act* act
    for user in users:
        n += user.n_acts
        most = max(most, user.n_acts)
    while n_places < 2 * most:
        n_places *= 2
    starts_made = np.zeros(len(users) + 1, np.int64)
    times_made, weights_made = np.empty(n, np.int64), np.empty(n, np.float64)
    waits_made = np.empty(n, np.bool_)
    cdef int64_t[::1] starts = starts_made, times = times_made
    cdef double[::1] weights = weights_made
    cdef uint8_t[::1] waits = waits_made.view(np.uint8)
    cdef list item_ids = [], histories = [], excluded = [], barred
    cdef list history
    # Items by their hash, each at the next free place; 0 is free.
    places = <int32_t*>malloc(n_places * sizeof(int32_t))
    items = <Item*>malloc(max(most, 1) * sizeof(Item))
    n = 0
    try:
        if places == NULL or items == NULL:
            raise MemoryError
        for number in range(len(users)):
            user = users[number]
            memset(places, 0, n_places * sizeof(int32_t))
            n_items = 0
            for i in range(user.n_acts):
                act = &user.acts[i]
                item_ids.append(<object>act.item)
                times[n + i], weights[n + i], waits[n + i] = act.at_ms, act.weight, not act.folded
            n += user.n_acts
            starts[number + 1] = n
            # Newest first: so the first act on an item that is met is the latest.
            for i in range(user.n_acts - 1, -1, -1):
                act = &user.acts[i]
                place = act.hash & (n_places - 1)
                while places[place] and not _same_item(items[places[place] - 1].latest, act):
                    place = (place + 1) & (n_places - 1)
                if not places[place]:
                    n_items += 1
                    places[place] = <int32_t>n_items
                    item = &items[n_items - 1]
                    item.latest, item.is_repeated = act, False
                    item.bought_ms = item.disliked_ms = item.liked_ms = NEVER
                    item.best, item.worst = max(act.weight, 0.0), min(act.weight, 0.0)
                else:
                    item = &items[places[place] - 1]
                    item.is_repeated = True
                    item.best, item.worst = max(item.best, act.weight), min(item.worst, act.weight)
                if act.kind == PURCHASE:
                    item.bought_ms = max(item.bought_ms, act.at_ms)
                elif act.kind == DISLIKE:
                    item.disliked_ms = max(item.disliked_ms, act.at_ms)
                if _IS_LIKING[act.kind]:
                    item.liked_ms = max(item.liked_ms, act.at_ms)
            history, barred = [], []
            for i in range(n_items - 1, -1, -1):
                item = &items[i]
                act = <Act*>item.latest
                history.append(
                    _HistoryItem(
                        <object>act.item,
                        item.best + item.worst if item.is_repeated else act.weight,
                        act.at_ms,
                    )
                )
                if (item.bought_ms != NEVER and item.bought_ms > oldest_bought_ms) or (
                    item.disliked_ms != NEVER and item.liked_ms <= item.disliked_ms
                ):
                    barred.append(<object>act.item)
            histories.append(tuple(history))
            excluded.append(frozenset(barred))
    finally:
        free(places)
        free(items)
    return item_ids, starts_made, times_made, weights_made, waits_made, histories, excluded


cdef tuple _faded_with(tuple faded, period, item_id):
    """Return the sets with one more item; see user_state.fade and HashedIds.plus."""
    cdef Py_ssize_t i, width, at = 0, n
    cdef uint8_t wanted[4]
    cdef const uint8_t* raw
    for i in range(len(faded)):
        if faded[i].period == period:
            break
    else:
        return user_state.fade(faded, [(period, item_id)])
    one = faded[i]
    width, held = one.bits // 8, one.raw
    if one.bits % 8 or width < 2 or len(held) % width:  # as bits, or damaged
        return user_state.fade(faded, [(period, item_id)])
    _big(wanted, hashed_ids.hash_of(item_id) >> (hashed_ids.FINEST - one.bits), <int>width)
    raw, n = <const uint8_t*>PyBytes_AS_STRING(held), len(held)
    for at in range(width, n, width):
        if memcmp(raw + at - width, raw + at, width) >= 0:  # damaged
            return user_state.fade(faded, [(period, item_id)])
    at = 0
    while at < n and memcmp(raw + at, wanted, width) < 0:
        at += width
    if at < n and memcmp(raw + at, wanted, width) == 0:
        return faded
    held = held[:at] + (<char*>wanted)[:width] + held[at:]
    longer = Faded(period, one.bits, held)
    return tuple(sorted(faded[:i] + (longer,) + faded[i + 1:]))


cdef int _add_weighted(_Adding added, vector, double weight, int64_t at_ms) except -1:
    """Add a vector times its weight, rounded as numpy rounds it."""
    cdef _Floats floats = _Floats(vector)
    cdef float factor = <float>weight
    cdef Py_ssize_t i
    cdef float* weighted = <float*>malloc(max(floats.dim, 1) * sizeof(float))
    if weighted == NULL:
        raise MemoryError
    try:
        for i in range(floats.dim):
            weighted[i] = factor * floats.at[i]
        added.add(weighted, floats.dim, weight, at_ms)
    finally:
        free(weighted)
    return 0


cdef object _array_of(_Adding added):
    """Return a copy of what was added, shape (dim,)."""
    return np.frombuffer((<char*>added.vector)[:added.dim * sizeof(float)], np.float32)


cdef inline int _bytes_raw(Out* out, bytes raw) except -1:
    return _raw(out, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))


cdef int _write_pending(Out* out, pending) except -1:
    if pending is None:
        return _nil(out)
    _array(out, 5)
    _int(out, SOURCES.index(pending.topic))
    _int(out, pending.partition)
    _int(out, pending.offset)
    _str(out, pending.event_id)
    return _int(out, pending.event_time_ms)


include "_acts.pxi"


include "_ids.pxi"


include "_pairs.pxi"
