# Part of _native.pyx: BLAKE2b (RFC 7693), as much of it as the ids of events take.

cdef uint64_t[8] _IV = [
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
]
cdef uint8_t[12][16] _SIGMA = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
]


cdef inline uint64_t _turned(uint64_t x, int n) noexcept nogil:
    return (x >> n) | (x << (64 - n))


cdef inline void _mix(uint64_t* v, int a, int b, int c, int d, uint64_t x, uint64_t y) noexcept nogil:
    v[a] = v[a] + v[b] + x
    v[d] = _turned(v[d] ^ v[a], 32)
    v[c] = v[c] + v[d]
    v[b] = _turned(v[b] ^ v[c], 24)
    v[a] = v[a] + v[b] + y
    v[d] = _turned(v[d] ^ v[a], 16)
    v[c] = v[c] + v[d]
    v[b] = _turned(v[b] ^ v[c], 63)


cdef void _compress(uint64_t* h, const uint8_t* block, uint64_t n, bint last) noexcept nogil:
    cdef uint64_t v[16]
    cdef uint64_t m[16]
    cdef int i
    cdef uint8_t* s
    memcpy(m, block, 128)
    for i in range(8):
        v[i] = h[i]
        v[i + 8] = _IV[i]
    v[12] ^= n
    if last:
        v[14] = ~v[14]
    for i in range(12):
        s = _SIGMA[i]
        _mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]])
        _mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]])
        _mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]])
        _mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]])
        _mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]])
        _mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]])
        _mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]])
        _mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]])
    for i in range(8):
        h[i] ^= v[i] ^ v[i + 8]


cdef void _hash_of(const char* prefix, size_t n_prefix, const char* text, size_t n,
                   uint8_t* out) noexcept nogil:
    """Write the first ID_BYTES of the 8-byte BLAKE2b hash of prefix + text."""
    cdef uint64_t h[8]
    cdef uint8_t block[128]
    cdef size_t filled = n_prefix, part
    cdef uint64_t total = 0
    memcpy(h, _IV, sizeof(h))
    h[0] ^= 0x01010000 ^ 8
    memcpy(block, prefix, n_prefix)
    while True:
        part = min(128 - filled, n)
        memcpy(block + filled, text, part)
        filled += part
        text += part
        n -= part
        if n == 0:
            break
        total += 128
        _compress(h, block, total, False)
        filled = 0
    memset(block + filled, 0, 128 - filled)
    _compress(h, block, total + filled, True)
    memcpy(out, h, ID_BYTES)


def event_hash(str event_id):
    """Return what is kept of the id of an event of the clickstream."""
    cdef uint8_t digest[ID_BYTES]
    _event_hash(event_id, digest)
    return PyBytes_FromStringAndSize(<char*>digest, ID_BYTES)


cdef int _event_hash(object event_id, uint8_t* out) except -1:
    cdef Py_ssize_t n
    cdef const char* text = PyUnicode_AsUTF8AndSize(event_id, &n)
    _hash_of(b"clickstream\x1f", 12, text, n, out)
    return 0
