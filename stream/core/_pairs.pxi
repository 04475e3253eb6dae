# Part of _native.pyx: what touches tell partitions of items, as pairs.py says it in Python.

cdef enum:
    ITEMS
    N_OTHERS
    OTHERS
    WEIGHTS
    FIRST
    TIMES_MS
    REGIONS
    BESIDE_ITEMS
    BESIDE_N_OTHERS
    BESIDE_OTHERS
    BESIDE_TIMES_MS
    N_COLUMNS
    # Items that two bytes can tell apart, and the most others that their number can.
    NARROW = 65536


cdef inline int _little(Out* out, uint64_t value, int n) except -1:
    cdef int i
    _room(out, n)
    for i in range(n):
        out.at[out.n + i] = <uint8_t>(value >> (8 * i))
    out.n += n
    return 0


cdef inline int64_t _number_of(dict numbers, key) except -1:
    """Return the number of a key, the next one where it has none."""
    cdef PyObject* found = PyDict_GetItem(numbers, key)
    if found != NULL:
        return <object>found
    cdef int64_t number = len(numbers)
    numbers[key] = number
    return number


@cython.final
cdef class _Told:
    """What one partition is told. Places of items take four bytes until all of them are known."""

    cdef Out columns[N_COLUMNS]
    cdef dict number_of, number_of_name
    cdef Py_ssize_t line  # the touch that its last line of ``beside`` is of

    def __cinit__(self):
        self.number_of, self.number_of_name, self.line = {}, {}, -1

    def __dealloc__(self):
        for column in range(N_COLUMNS):
            free(self.columns[column].at)

    cdef bytes _raw(self, int column):
        return PyBytes_FromStringAndSize(<char*>self.columns[column].at, self.columns[column].n)

    cdef bytes _places(self, int column):
        cdef Out* out = &self.columns[column]
        cdef size_t at
        if len(self.number_of) <= NARROW:
            for at in range(out.n // 4):
                out.at[2 * at], out.at[2 * at + 1] = out.at[4 * at], out.at[4 * at + 1]
            out.n //= 2
        return self._raw(column)

    cdef dict packed(self):
        return {
            "item_ids": list(self.number_of),
            "items": self._places(ITEMS),
            "n_others": self._raw(N_OTHERS),
            "others": self._places(OTHERS),
            "weights": self._raw(WEIGHTS),
            "first": self._raw(FIRST),
            "times_ms": self._raw(TIMES_MS),
            "region_names": list(self.number_of_name),
            "regions": self._raw(REGIONS),
            "beside_items": self._places(BESIDE_ITEMS),
            "beside_n_others": self._raw(BESIDE_N_OTHERS),
            "beside_others": self._places(BESIDE_OTHERS),
            "beside_times_ms": self._raw(BESIDE_TIMES_MS),
        }


cdef _Told _told_of(item_id, dict homes, dict told, partition_of):
    """Return what the partition of an item is told."""
    cdef PyObject* found = PyDict_GetItem(homes, item_id)
    if found != NULL:
        return <_Told>found
    partition = partition_of(item_id)
    if partition not in told:
        told[partition] = _Told()
    homes[item_id] = told[partition]
    return <_Told>told[partition]


def tell(touches, partition_of):
    """Return the columns of what the touches tell each partition, in order of partitions."""
    cdef dict homes = {}, told = {}
    cdef _Told own, there
    cdef Out* n_others
    cdef tuple others
    cdef int64_t at_ms
    cdef float weight
    cdef uint32_t bits
    cdef Py_ssize_t number = -1
    for touch in touches:
        number += 1
        item_id, others, at_ms = touch.item_id, touch.others, touch.event_time_ms
        if len(others) >= NARROW:
            raise OverflowError(f"expected fewer than {NARROW} others, got {len(others)}")
        own, weight = _told_of(item_id, homes, told, partition_of), touch.weight
        memcpy(&bits, &weight, 4)
        _little(&own.columns[ITEMS], _number_of(own.number_of, item_id), 4)
        _little(&own.columns[N_OTHERS], len(others), 2)
        for other in others:
            _little(&own.columns[OTHERS], _number_of(own.number_of, other), 4)
        _little(&own.columns[WEIGHTS], bits, 4)
        _little(&own.columns[FIRST], bool(touch.first), 1)
        _little(&own.columns[TIMES_MS], <uint64_t>at_ms, 8)
        _little(&own.columns[REGIONS], _number_of(own.number_of_name, touch.region), 2)
        for other in others:
            there = _told_of(other, homes, told, partition_of)
            n_others = &there.columns[BESIDE_N_OTHERS]
            if there.line != number:
                there.line = number
                _little(&there.columns[BESIDE_ITEMS], _number_of(there.number_of, item_id), 4)
                _little(&there.columns[BESIDE_TIMES_MS], <uint64_t>at_ms, 8)
                _little(n_others, 0, 2)
            _little(&there.columns[BESIDE_OTHERS], _number_of(there.number_of, other), 4)
            n_others.at[n_others.n - 2] += 1
            if not n_others.at[n_others.n - 2]:
                n_others.at[n_others.n - 1] += 1
    return [(partition, (<_Told>told[partition]).packed()) for partition in sorted(told)]
