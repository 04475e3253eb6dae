# Part of _native.pyx: the columns of a base's acts, as in user_columns.py.

cdef int _small(Out* out, const uint16_t* numbers, Py_ssize_t n) except -1:
    """One byte a number, or two where one is above 255."""
    cdef Py_ssize_t i
    cdef bint is_wide = False
    for i in range(n):
        is_wide |= numbers[i] > 255
    if is_wide:
        return _bin(out, numbers, 2 * n)
    _head(out, n, 0, 0, 0xC4, 1)
    _room(out, n)
    for i in range(n):
        out.at[out.n + i] = <uint8_t>numbers[i]
    out.n += n
    return 0


cdef int _write_acts(Out* out, Act* acts, Py_ssize_t n, int64_t base_ms) except -1:
    """Write ActColumns; see user_columns.act_columns."""
    cdef uint16_t* places = <uint16_t*>malloc(n * sizeof(uint16_t))
    cdef Act** distinct = <Act**>malloc(n * sizeof(Act*))
    cdef Py_ssize_t i, n_distinct
    try:
        if places == NULL or distinct == NULL:
            raise MemoryError
        n_distinct = _distinct(acts, n, distinct, places)
        _array(out, 6)
        _write_ids(out, distinct, n_distinct)
        if n_distinct < n:
            _small(out, places, n)
        else:
            _bin(out, b"", 0)
        _write_kinds(out, acts, n, places)
        _array(out, n)
        _int(out, base_ms - acts[0].at_ms)
        for i in range(1, n):
            _int(out, acts[i].at_ms - acts[i - 1].at_ms)
    finally:
        free(places)
        free(distinct)
    return 0


cdef Py_ssize_t _distinct(Act* acts, Py_ssize_t n, Act** distinct, uint16_t* places) except -1:
    """Find the items, each once, as they first come, and the acts' places among them."""
    cdef Py_ssize_t size = 16, at, i, n_distinct = 0
    cdef uint16_t* table
    if n > 60000:
        raise ValueError(f"{n} acts are too many for a row")
    while size < 2 * n:
        size *= 2
    table = <uint16_t*>calloc(size, sizeof(uint16_t))  # places, plus 1
    if table == NULL:
        raise MemoryError
    for i in range(n):
        at = acts[i].hash & (size - 1)
        while table[at] and not _same_item(distinct[table[at] - 1], &acts[i]):
            at = (at + 1) & (size - 1)
        if not table[at]:
            distinct[n_distinct] = &acts[i]
            n_distinct += 1
            table[at] = <uint16_t>n_distinct
        places[i] = table[at] - 1
    free(table)
    return n_distinct


cdef int _write_kinds(Out* out, Act* acts, Py_ssize_t n, uint16_t* numbers) except -1:
    """Write the acts' numbers, and name and weight of each number; ``numbers`` is scratch."""
    cdef double weight_of[N_KINDS]
    cdef int16_t number_of[N_KINDS]
    cdef uint8_t* kinds
    cdef double* weights
    cdef float told
    cdef Py_ssize_t i, j, n_names = 0
    cdef bint is_one_each = True
    memset(number_of, 0xFF, sizeof(number_of))
    for i in range(n):
        weight_of[acts[i].kind] = acts[i].weight
    for i in range(n):
        is_one_each &= weight_of[acts[i].kind] == acts[i].weight
    kinds = <uint8_t*>malloc(n)
    weights = <double*>malloc(n * sizeof(double))
    try:
        if kinds == NULL or weights == NULL:
            raise MemoryError
        for i in range(n):
            if is_one_each:
                j = number_of[acts[i].kind]
                if j < 0:
                    j = n_names
                    number_of[acts[i].kind] = <int16_t>j
            else:  # acts of a kind that weigh differently, as reviews do
                j = 0
                while j < n_names and not (
                    kinds[j] == acts[i].kind and weights[j] == acts[i].weight
                ):
                    j += 1
            if j == n_names:
                kinds[j], n_names = acts[i].kind, n_names + 1
            weights[j] = weight_of[acts[i].kind] if is_one_each else acts[i].weight
            numbers[i] = <uint16_t>(2 * j + acts[i].folded)
        _small(out, numbers, n)
        _array(out, n_names)
        for j in range(n_names):
            _str(out, _KINDS[kinds[j]])
        _head(out, 4 * n_names, 0, 0, 0xC4, 1)
        for j in range(n_names):
            told = <float>weights[j]
            _raw(out, &told, 4)
    finally:
        free(kinds)
        free(weights)
    return 0
