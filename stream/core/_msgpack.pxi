# Part of _native.pyx: MessagePack in the shortest forms, as msgspec writes it, and a reader that
# sets a mark for whatever it does not expect and reads nothing behind it.

cdef struct Out:
    uint8_t* at
    size_t n
    size_t room


cdef int _room(Out* out, size_t n) except -1:
    """Make room for n bytes more."""
    cdef uint8_t* grown
    if out.n + n > out.room:
        grown = <uint8_t*>realloc(out.at, 2 * (out.n + n))
        if grown == NULL:
            raise MemoryError
        out.at, out.room = grown, 2 * (out.n + n)
    return 0


cdef inline void _big(uint8_t* at, uint64_t value, int n) noexcept:
    cdef int i
    for i in range(n):
        at[i] = <uint8_t>(value >> (8 * (n - 1 - i)))


cdef int _int(Out* out, int64_t value) except -1:
    cdef uint8_t mark
    cdef int n
    _room(out, 9)
    if -32 <= value < 128:
        out.at[out.n] = <uint8_t>value
        out.n += 1
        return 0
    if value >= 0:
        if value < 1 << 8:
            mark, n = 0xCC, 1
        elif value < 1 << 16:
            mark, n = 0xCD, 2
        elif value < <int64_t>1 << 32:
            mark, n = 0xCE, 4
        else:
            mark, n = 0xCF, 8
    elif value >= -(1 << 7):
        mark, n = 0xD0, 1
    elif value >= -(1 << 15):
        mark, n = 0xD1, 2
    elif value >= -(<int64_t>1 << 31):
        mark, n = 0xD2, 4
    else:
        mark, n = 0xD3, 8
    out.at[out.n] = mark
    _big(out.at + out.n + 1, <uint64_t>value, n)
    out.n += 1 + n
    return 0


cdef int _float(Out* out, double value) except -1:
    """A sum that is still 0 takes one byte, as a whole number."""
    cdef uint64_t bits
    if value == 0 and not signbit(value):
        return _int(out, 0)
    _room(out, 9)
    memcpy(&bits, &value, 8)
    out.at[out.n] = 0xCB
    _big(out.at + out.n + 1, bits, 8)
    out.n += 9
    return 0


cdef int _raw(Out* out, const void* raw, size_t n) except -1:
    _room(out, n)
    memcpy(out.at + out.n, raw, n)
    out.n += n
    return 0


cdef int _head(Out* out, size_t n, int few_mark, int few, int mark, int widest) except -1:
    """A length: in the mark, or in 1, 2 or 4 bytes behind it (``widest``: from which on)."""
    _room(out, 5)
    if <int64_t>n < few:
        out.at[out.n] = <uint8_t>(few_mark | n)
        out.n += 1
    elif n < 256 and widest == 1:
        out.at[out.n] = <uint8_t>mark
        out.at[out.n + 1] = <uint8_t>n
        out.n += 2
    elif n < 65536:
        out.at[out.n] = <uint8_t>(mark + (1 if widest == 1 else 0))
        _big(out.at + out.n + 1, n, 2)
        out.n += 3
    else:
        out.at[out.n] = <uint8_t>(mark + (2 if widest == 1 else 1))
        _big(out.at + out.n + 1, n, 4)
        out.n += 5
    return 0


cdef int _array(Out* out, size_t n) except -1:
    return _head(out, n, 0x90, 16, 0xDC, 2)


cdef int _bin(Out* out, const void* raw, size_t n) except -1:
    _head(out, n, 0, 0, 0xC4, 1)
    return _raw(out, raw, n)


cdef int _bytes(Out* out, bytes raw) except -1:
    return _bin(out, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))


cdef int _str(Out* out, object text) except -1:
    cdef Py_ssize_t n
    cdef const char* raw = PyUnicode_AsUTF8AndSize(text, &n)
    _head(out, n, 0xA0, 32, 0xD9, 1)
    return _raw(out, raw, n)


cdef inline int _nil(Out* out) except -1:
    return _raw(out, b"\xc0", 1)


cdef struct In:
    const uint8_t* at
    const uint8_t* end
    bint bad  # set for good by whatever was not as expected


cdef inline uint64_t _read_big(In* src, int n) noexcept:
    cdef uint64_t value = 0
    cdef int i
    if src.end - src.at < n:
        src.bad = True
        return 0
    for i in range(n):
        value = value << 8 | src.at[i]
    src.at += n
    return value


cdef inline int _read_mark(In* src) noexcept:
    if src.bad or src.at >= src.end:
        src.bad = True
        return -1
    src.at += 1
    return (src.at - 1)[0]


cdef int64_t _read_int_of(In* src, int mark) noexcept:
    cdef uint64_t wide
    if mark < 0:
        return 0
    if mark < 0x80:
        return mark
    if mark >= 0xE0:
        return mark - 256
    if mark == 0xCC:
        return <int64_t>_read_big(src, 1)
    if mark == 0xCD:
        return <int64_t>_read_big(src, 2)
    if mark == 0xCE:
        return <int64_t>_read_big(src, 4)
    if mark == 0xCF:
        wide = _read_big(src, 8)
        if wide >> 63:
            src.bad = True
            return 0
        return <int64_t>wide
    if mark == 0xD0:
        return <int8_t>_read_big(src, 1)
    if mark == 0xD1:
        return <int64_t>(<uint64_t>_read_big(src, 2) ^ 0x8000) - 0x8000
    if mark == 0xD2:
        return <int64_t>(<uint64_t>_read_big(src, 4) ^ 0x80000000) - 0x80000000
    if mark == 0xD3:
        return <int64_t>_read_big(src, 8)
    src.bad = True
    return 0


cdef inline int64_t _read_int(In* src) noexcept:
    return _read_int_of(src, _read_mark(src))


cdef int64_t _read_time(In* src) noexcept:
    """A number, so small that sums and differences of two are no trouble, nor as doubles."""
    cdef int64_t value = _read_int(src)
    if not -_LATEST_MS <= value <= _LATEST_MS:
        src.bad = True
        return 0
    return value


cdef double _read_float(In* src) noexcept:
    cdef int mark = _read_mark(src)
    cdef uint64_t bits
    cdef double value
    cdef int64_t whole
    if mark == 0xCB:
        bits = _read_big(src, 8)
        memcpy(&value, &bits, 8)
        return value
    whole = _read_int_of(src, mark)
    if not -_LATEST_MS <= whole <= _LATEST_MS:
        src.bad = True
    return <double>whole


cdef const uint8_t* _read_part(In* src, size_t n) noexcept:
    cdef const uint8_t* at = src.at
    if src.bad or <size_t>(src.end - src.at) < n:
        src.bad = True
        return NULL
    src.at += n
    return at


cdef const uint8_t* _read_bin(In* src, size_t* n) noexcept:
    cdef int mark = _read_mark(src)
    n[0] = 0
    if mark < 0xC4 or mark > 0xC6:
        src.bad = True
        return NULL
    n[0] = _read_big(src, 1 << (mark - 0xC4))
    return _read_part(src, n[0])


cdef object _read_str_of(In* src, int mark):
    cdef size_t n
    cdef const uint8_t* raw
    if 0xA0 <= mark < 0xC0:
        n = mark & 31
    elif 0xD9 <= mark <= 0xDB:
        n = _read_big(src, 1 << (mark - 0xD9))
    else:
        src.bad = True
        return None
    raw = _read_part(src, n)
    return None if src.bad else PyUnicode_DecodeUTF8(<const char*>raw, n, NULL)


cdef int64_t _read_array(In* src) noexcept:
    cdef int mark = _read_mark(src)
    if 0x90 <= mark < 0xA0:
        return mark & 15
    if mark == 0xDC:
        return <int64_t>_read_big(src, 2)
    src.bad = True
    return 0


cdef int _skip(In* src, int depth) noexcept:
    """Go past one value."""
    cdef int mark = _read_mark(src)
    cdef int64_t n, i
    if mark < 0 or depth > 8:
        src.bad = True
    elif mark < 0x80 or mark >= 0xE0 or mark == 0xC0 or mark == 0xC2 or mark == 0xC3:
        pass
    elif 0x90 <= mark < 0xA0 or mark == 0xDC:
        n = mark & 15 if mark != 0xDC else <int64_t>_read_big(src, 2)
        for i in range(n):
            if src.bad:
                break
            _skip(src, depth + 1)
    elif 0xA0 <= mark < 0xC0:
        _read_part(src, mark & 31)
    elif 0xC4 <= mark <= 0xC6:
        _read_part(src, _read_big(src, 1 << (mark - 0xC4)))
    elif 0xD9 <= mark <= 0xDB:
        _read_part(src, _read_big(src, 1 << (mark - 0xD9)))
    elif mark == 0xCA or 0xCC <= mark <= 0xD3:
        _read_part(src, 8 if mark == 0xCB else 4 if mark == 0xCA else 1 << (mark & 3))
    elif mark == 0xCB:
        _read_part(src, 8)
    else:
        src.bad = True
    return 0
