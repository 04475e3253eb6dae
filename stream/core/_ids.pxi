# Part of _native.pyx: item ids in few bytes, as in packed_ids.py.

cdef uint8_t[256] _SIX_BITS  # of a character, 64 for those that have none
cdef bytes _ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef const char* _LETTERS = _ALPHABET
memset(_SIX_BITS, 64, 256)
for _number in range(64):
    _SIX_BITS[<uint8_t>_LETTERS[_number]] = _number
cdef bytes _MARKS = "".join(packed_ids.MARKS).encode()
cdef const char* _HEX = b"0123456789abcdef"
assert len(_MARKS) == 4


cdef inline bint _is_hyphen_of_uuid(int place) noexcept:
    return place == 8 or place == 13 or place == 18 or place == 23


cdef inline int _digit(uint8_t letter) noexcept:
    if 48 <= letter <= 57:
        return letter - 48
    if 97 <= letter <= 102:
        return letter - 87
    return -1


cdef bint _is_uuid(const char* text, Py_ssize_t n) noexcept:
    cdef int i
    if n != 36:
        return False
    for i in range(36):
        if _is_hyphen_of_uuid(i):
            if text[i] != 45:
                return False
        elif _digit(<uint8_t>text[i]) < 0:
            return False
    return True


cdef int _write_ids(Out* out, Act** distinct, Py_ssize_t n) except -1:
    cdef Py_ssize_t i, j, n_text, n_joined = 0, filled = 0
    cdef const char* text
    cdef bint are_uuids = True, are_split = True
    cdef uint8_t* joined
    cdef int mark = 43, place
    for i in range(n):
        text = PyUnicode_AsUTF8AndSize(<object>distinct[i].item, &n_text)
        are_uuids &= _is_uuid(text, n_text)
        are_split &= n_text > 0
        n_joined += n_text + 1
    if are_uuids:
        _head(out, 1 + 16 * n, 0, 0, 0xC4, 1)
        _raw(out, b"\x01", 1)
        for i in range(n):
            text = PyUnicode_AsUTF8AndSize(<object>distinct[i].item, &n_text)
            _room(out, 16)
            place = 0
            for j in range(16):
                if _is_hyphen_of_uuid(place):
                    place += 1
                out.at[out.n + j] = <uint8_t>(
                    _digit(<uint8_t>text[place]) << 4 | _digit(<uint8_t>text[place + 1])
                )
                place += 2
            out.n += 16
        return 0
    # Joined by "/", and as many more as make fours of them.
    joined = <uint8_t*>malloc(n_joined + 4)
    if joined == NULL:
        raise MemoryError
    try:
        for i in range(n):
            text = PyUnicode_AsUTF8AndSize(<object>distinct[i].item, &n_text)
            for j in range(n_text):
                are_split &= text[j] != 47
            memcpy(joined + filled, text, n_text)
            filled += n_text
            joined[filled] = 47
            filled += 1
        filled -= 1
        while filled % 4:
            joined[filled] = 47
            filled += 1
        if are_split and not _are_six_bits(joined, filled):
            mark = _free_mark(joined, filled)
            are_split = mark != 0
        if not are_split:
            return _write_plain(out, distinct, n)
        _head(out, 1 + filled // 4 * 3, 0, 0, 0xC4, 1)
        _room(out, 1 + filled // 4 * 3)
        out.at[out.n] = <uint8_t>mark
        out.n += 1
        for i in range(0, filled, 4):
            _big(
                out.at + out.n,
                _SIX_BITS[joined[i]] << 18 | _SIX_BITS[joined[i + 1]] << 12
                | _SIX_BITS[joined[i + 2]] << 6 | _SIX_BITS[joined[i + 3]],
                3,
            )
            out.n += 3
    finally:
        free(joined)
    return 0


cdef bint _are_six_bits(const uint8_t* joined, Py_ssize_t n) noexcept:
    cdef Py_ssize_t i
    for i in range(n):
        if _SIX_BITS[joined[i]] == 64:
            return False
    return True


cdef int _free_mark(uint8_t* joined, Py_ssize_t n):
    """Write "+" for the first of the marks that is there; return it, or 0 where that is no help."""
    cdef Py_ssize_t i
    cdef int mark = 0
    cdef uint8_t one
    for i in range(n):
        if joined[i] == 43:
            return 0
    for one in _MARKS:
        for i in range(n):
            if joined[i] == one:
                mark = one
                break
        if mark:
            break
    if not mark:
        return 0
    for i in range(n):
        if joined[i] == mark:
            joined[i] = 43
    return mark if _are_six_bits(joined, n) else 0


cdef int _write_plain(Out* out, Act** distinct, Py_ssize_t n) except -1:
    cdef Out plain
    cdef Py_ssize_t i
    plain.at, plain.n, plain.room = NULL, 0, 0
    try:
        _raw(&plain, b"\x00", 1)
        _array(&plain, n)
        for i in range(n):
            _str(&plain, <object>distinct[i].item)
        return _bin(out, plain.at, plain.n)
    finally:
        free(plain.at)


cdef list _ids_of(const uint8_t* packed, size_t n_packed):
    """Return what was packed; None where Python must say what that is."""
    cdef const uint8_t* raw = packed + 1
    cdef size_t n = n_packed - 1, i, begin = 0
    cdef uint8_t* joined
    cdef uint32_t four
    cdef In src
    cdef list ids = []
    cdef int64_t n_ids
    if n_packed < 2:
        return None
    if packed[0] == 0:
        src.at, src.end, src.bad = raw, raw + n, False
        n_ids = _read_array(&src)
        while n_ids > 0 and not src.bad:
            ids.append(_read_str_of(&src, _read_mark(&src)))
            n_ids -= 1
        return None if src.bad or src.at != src.end else ids
    if packed[0] == 1:
        return None if n % 16 else [_uuid(raw + i) for i in range(0, n, 16)]
    if n % 3 or (packed[0] != 43 and packed[0] not in _MARKS):
        return None
    joined = <uint8_t*>malloc(n // 3 * 4)
    if joined == NULL:
        raise MemoryError
    try:
        for i in range(n // 3):
            four = raw[3 * i] << 16 | raw[3 * i + 1] << 8 | raw[3 * i + 2]
            joined[4 * i] = <uint8_t>_LETTERS[four >> 18]
            joined[4 * i + 1] = <uint8_t>_LETTERS[four >> 12 & 63]
            joined[4 * i + 2] = <uint8_t>_LETTERS[four >> 6 & 63]
            joined[4 * i + 3] = <uint8_t>_LETTERS[four & 63]
        n = n // 3 * 4
        while n and joined[n - 1] == 47:
            n -= 1
        for i in range(n):
            if joined[i] == 43:
                joined[i] = packed[0]
        for i in range(n + 1):
            if i == n or joined[i] == 47:
                if i == begin:
                    return None
                ids.append(PyUnicode_DecodeUTF8(<char*>joined + begin, i - begin, NULL))
                begin = i + 1
    finally:
        free(joined)
    return ids


cdef object _uuid(const uint8_t* raw):
    cdef char text[36]
    cdef int i, place = 0
    for i in range(16):
        if _is_hyphen_of_uuid(place):
            text[place] = 45
            place += 1
        text[place] = _HEX[raw[i] >> 4]
        text[place + 1] = _HEX[raw[i] & 15]
        place += 2
    return PyUnicode_DecodeUTF8(text, 36, NULL)


cdef inline int64_t _number_in(const uint8_t* raw, size_t n_bytes, int64_t n, int64_t i) noexcept:
    """Return a number of a column: of one byte each, or two."""
    return raw[i] if n_bytes == <size_t>n else raw[2 * i] | raw[2 * i + 1] << 8
