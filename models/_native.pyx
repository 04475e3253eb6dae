# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=False
"""The inner loops of lists, shopper by shopper, over columns: what evidence.py, candidates.py,
hybrid.py, diversity.py and reasons.py say in numpy, said once more without an array for each step.

Those modules are the reference: a property test compares both. They are told apart by rounding
alone, since sums are taken in another order.
"""

from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.math cimport fabs, INFINITY, isnan, NAN, pow, rint
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import numpy as np

from models.profile import Reason, RecommendedItem

# By name they would be looked up for each value that is made.
cdef object _Reason = Reason
cdef object _Item = RecommendedItem

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
    /* The widest registers of the machine that it runs on, not of the one that compiled it. */
    __attribute__((target_clones("avx512f", "fma", "default")))
    #endif
    static float prefstream_dot(const float *a, const float *b, long n) {
        /* Two sums at a time: one alone would wait for itself. */
        typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));
        lanes even = {0}, odd = {0};
        long i = 0;
        for (; i + 32 <= n; i += 32) {
            even += *(const lanes *)(a + i) * *(const lanes *)(b + i);
            odd += *(const lanes *)(a + i + 16) * *(const lanes *)(b + i + 16);
        }
        even += odd;
        float sum = 0;
        for (int lane = 0; lane < 16; lane++)
            sum += even[lane];
        for (; i < n; i++)
            sum += a[i] * b[i];
        return sum;
    }
    static inline void prefstream_fetch(const float *a, long n) {
    #if defined(__GNUC__)
        for (long i = 0; i < n; i += 16)
            __builtin_prefetch(a + i);
    #endif
    }
    static inline float prefstream_wide(uint32_t half) {
        /* The exponent's bias differs by 112; subnormal numbers come right by the product too. */
        const float scale = 5192296858534827628530496329220096.0f;
        uint32_t bits = (half & 0x7FFF) << 13;
        float value;
        memcpy(&value, &bits, 4);
        value *= scale;
        memcpy(&bits, &value, 4);
        bits |= (half & 0x8000) << 16;
        memcpy(&value, &bits, 4);
        return value;
    }
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
    __attribute__((target_clones("avx512f", "avx2", "default")))
    #endif
    static void prefstream_widen(const uint16_t *halves, float *wide, long n) {
        for (long i = 0; i < n; i++) {
            wide[i] = prefstream_wide(halves[i]);
        }
    }
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
    __attribute__((target_clones("avx512f", "avx2", "default")))
    #endif
    static void prefstream_add(
        const uint16_t *restrict halves, float *restrict one, float *restrict other,
        float of_one, float of_other, long n
    ) {
        /* Add shares of it to two sums. */
        for (long i = 0; i < n; i++) {
            float value = prefstream_wide(halves[i]);
            one[i] += of_one * value;
            other[i] += of_other * value;
        }
    }
    """
    void prefstream_add(
        const uint16_t* halves, float* one, float* other, float of_one, float of_other, long n
    ) noexcept nogil
    void prefstream_fetch(const float* a, long n) noexcept nogil
    void prefstream_widen(const uint16_t* halves, float* wide, long n) noexcept nogil
    float prefstream_dot(const float* a, const float* b, long n) noexcept nogil

cdef enum:
    #: Reasons given for an item at most (reasons.MOST).
    MOST = 3
    #: Vectors fetched before they are needed.
    AHEAD = 3


def widen(const uint16_t[::1] halves, float[::1] wide):
    """Write half floats, given as their bits, as float32; both (n,), and finite."""
    if wide.shape[0] != halves.shape[0]:
        raise ValueError(f"expected {halves.shape[0]} places, got {wide.shape[0]}")
    if halves.shape[0]:
        with nogil:
            prefstream_widen(&halves[0], &wide[0], halves.shape[0])


def find_rows(dict row_of, item_ids, int64_t unknown):
    """Return what a dict says of each of some ids, ``unknown`` for those not in it, (n,)."""
    cdef int64_t n = len(item_ids), i = 0
    cdef PyObject* row
    made = np.empty(n, np.int64)
    cdef int64_t[::1] rows = made
    for item_id in item_ids:
        row = PyDict_GetItem(row_of, item_id)
        rows[i] = unknown if row == NULL else <int64_t><object>row
        i += 1
    return made


def places_of(const int64_t[::1] rows, const int64_t[::1] places):
    """Return what ``places`` says of each row, -1 for rows outside, (n,)."""
    cdef int64_t i
    made = np.empty(rows.shape[0], np.int64)
    cdef int64_t[::1] found = made
    for i in range(rows.shape[0]):
        found[i] = places[rows[i]] if 0 <= rows[i] < places.shape[0] else -1
    return made


def keep_allowed(
    const float[:, ::1] scores, const int64_t[:, ::1] rows, const uint8_t[::1] allowed, int64_t k
):
    """Return the first k of each query's answers, (n, m), that are allowed (a mask by row), with
    -inf and -1 behind the last: scores and rows (n, k), and how many are allowed in all (n,)."""
    cdef int64_t query, i, n, row
    scores_made = np.full((rows.shape[0], k), -INFINITY, np.float32)
    rows_made = np.full((rows.shape[0], k), -1, np.int64)
    counts_made = np.empty(rows.shape[0], np.int64)
    cdef float[:, ::1] kept_scores = scores_made
    cdef int64_t[:, ::1] kept_rows = rows_made
    cdef int64_t[::1] counts = counts_made
    with nogil:
        for query in range(rows.shape[0]):
            n = 0
            for i in range(rows.shape[1]):
                row = rows[query, i]
                if 0 <= row < allowed.shape[0] and allowed[row]:
                    if n < k:
                        kept_scores[query, n], kept_rows[query, n] = scores[query, i], row
                    n += 1
            counts[query] = n
    return scores_made, rows_made, counts_made


def neighbours(
    const int64_t[::1] rows,
    const int64_t[::1] lines,
    const int32_t[:, ::1] others,
    const double[:, ::1] log_counts,
    const double[::1] half_log_users,
):
    """Return what NeighbourTable.get does, with the logarithms of C in place of C.

    ``lines`` says by row which of ``others`` and ``log_counts`` is its, one more than its number.
    """
    cdef int64_t n = 0, i, j, line, width = others.shape[1]
    cdef double log_c
    for i in range(rows.shape[0]):
        n += 0 <= rows[i] < lines.shape[0] and lines[rows[i]] > 0
    found_made, places_made = np.empty(n * width, np.int64), np.empty(n * width, np.int64)
    logs_made = np.empty(n * width, np.float64)
    cdef int64_t[::1] found = found_made, places = places_made
    cdef double[::1] logs = logs_made
    n = 0
    with nogil:
        for i in range(rows.shape[0]):
            line = lines[rows[i]] - 1 if 0 <= rows[i] < lines.shape[0] else -1
            if line < 0:
                continue
            for j in range(width):
                if others[line, j] < 0:
                    continue
                log_c = log_counts[line, j] - half_log_users[others[line, j]]
                if log_c > -INFINITY:
                    found[n], places[n], logs[n] = others[line, j], i, min(log_c, 0.0)
                    n += 1
    return found_made[:n], places_made[:n], logs_made[:n]


cdef enum:
    #: Bits of a hash that are looked at first, as one of so many words: most of those that are not
    #: held differ in them.
    LOW_BITS = 12
    LOW_WORDS = 64


def may_hold(const uint32_t[::1] numbers, bytes raw, int64_t width):
    """Return which numbers are among those of ``width`` bytes in ``raw``, big-endian and rising."""
    cdef uint64_t seen[LOW_WORDS]
    cdef const uint8_t* held = raw
    cdef int64_t n_held = len(raw) // width, i, j, low, high, middle
    cdef uint32_t number, wanted
    made = np.zeros(numbers.shape[0], np.bool_)
    cdef uint8_t[::1] is_held = made.view(np.uint8)
    with nogil:
        memset(seen, 0, sizeof(seen))
        for i in range(n_held):
            number = held[width * i + width - 2] << 8 | held[width * i + width - 1]
            number &= (1 << LOW_BITS) - 1
            seen[number >> 6] |= <uint64_t>1 << (number & 63)
        for i in range(numbers.shape[0]):
            wanted = numbers[i]
            number = wanted & ((1 << LOW_BITS) - 1)
            if not seen[number >> 6] >> (number & 63) & 1:
                continue
            low, high = 0, n_held
            while low < high:
                middle, number = (low + high) // 2, 0
                for j in range(width):
                    number = number << 8 | held[width * middle + j]
                if number == wanted:
                    is_held[i] = 1
                    break
                if number < wanted:
                    low = middle + 1
                else:
                    high = middle
    return made


def add_up(
    const int64_t[::1] rows,
    const int64_t[::1] starts,
    const float[:, ::1] shares,
    const int64_t[::1] places,
    const uint16_t[:, ::1] halves,
    float[:, :, ::1] sums,
):
    """Add to ``sums`` (b, 2, dim) the half floats of rows times their ``shares`` (n, 2).

    Those of each begin at one of ``starts`` (b + 1,); ``places`` says by row which of ``halves`` is
    its. Rows without one are left out.
    """
    cdef int64_t owner, i, row, dim = halves.shape[1]
    with nogil:
        for owner in range(starts.shape[0] - 1):
            for i in range(starts[owner], starts[owner + 1]):
                if i + AHEAD < rows.shape[0]:
                    row = rows[i + AHEAD]
                    if 0 <= row < places.shape[0] and places[row] >= 0:
                        prefstream_fetch(<const float*>&halves[places[row], 0], dim // 2)
                row = rows[i]
                if 0 <= row < places.shape[0] and places[row] >= 0:
                    prefstream_add(
                        &halves[places[row], 0], &sums[owner, 0, 0], &sums[owner, 1, 0],
                        shares[i, 0], shares[i, 1], dim,
                    )


cdef struct Element:
    # What a shopper did to one item or said in one text; ``at`` is its act or text.
    int64_t row, at_ms, n, at
    double weight, least, most


def gather(profiles, const int64_t[::1] item_rows, double step_decay, double negligible, make):
    """Return the evidences of profiles as evidence.evidences_of does, made by ``make``, from the
    catalogue rows of all their ``items``, below 0 where unknown."""
    cdef int64_t n_most = 0, first = 0, n, n_items, i, j, k, row, steps
    cdef Element* elements
    cdef double total, heaviest, power, reach
    cdef bint takes_step
    cdef double[::1] coefficients
    cdef int64_t[::1] order, told_rows
    cdef float[::1] told
    for profile in profiles:
        n_most = max(n_most, len(profile.items) + len(profile.texts))
    elements_made = np.empty(max(n_most, 1) * sizeof(Element), np.uint8)
    cdef uint8_t[::1] room = elements_made
    elements = <Element*>&room[0]
    coefficients, order = np.empty(n_most, np.float64), np.empty(n_most, np.int64)
    evidences = []
    for profile in profiles:
        items, texts = profile.items, profile.texts
        n = 0
        for i in range(len(items)):
            row = item_rows[first + i]
            if row < 0:
                continue
            act = items[i]
            weight = act.weight
            elements[n].row, elements[n].at, elements[n].n = row, i, 1
            elements[n].at_ms = act.event_time_ms
            elements[n].weight = elements[n].least = elements[n].most = weight
            for j in range(n):
                if elements[j].row == row:
                    # Acts on one item are one element, at the place of the latest.
                    elements[n].n = elements[j].n + 1
                    elements[n].weight = elements[j].weight + elements[n].weight
                    elements[n].least = min(elements[j].least, elements[n].least)
                    elements[n].most = max(elements[j].most, elements[n].most)
                    for k in range(j, n):
                        elements[k] = elements[k + 1]
                    n -= 1
                    break
            n += 1
        first += len(items)
        n_items = n
        total = heaviest = 0
        for i in range(len(texts)):
            text = texts[i]
            elements[n].row, elements[n].at, elements[n].n = -1, i, 1
            # Stated interests are of one moment, before all acts.
            elements[n].at_ms = -1 if text.kind == "interest" else text.event_time_ms
            elements[n].weight = text.weight
            n += 1
        for i in range(n):
            if elements[i].n > 1:
                elements[i].weight = min(
                    max(elements[i].weight, elements[i].least), elements[i].most
                )
            total += fabs(elements[i].weight)
        # Newest first; they come oldest first, or nearly.
        for i in range(n):
            j = i
            while j and elements[order[j - 1]].at_ms < elements[n - 1 - i].at_ms:
                order[j] = order[j - 1]
                j -= 1
            order[j] = n - 1 - i
        i = steps = 0
        while i < n:
            j, takes_step, power = i, False, pow(step_decay, <double>steps)
            while j < n and elements[order[j]].at_ms == elements[order[i]].at_ms:
                coefficients[order[j]] = (
                    power * elements[order[j]].weight / (total if total > 0 else 1.0)
                )
                heaviest = max(heaviest, fabs(coefficients[order[j]]))
                takes_step |= elements[order[j]].weight > 0
                j += 1
            i = j
            steps += takes_step
        kinds, labels, vectors = [], [], []
        k, reach = 0, 0
        for i in range(n):
            if fabs(coefficients[i]) > negligible * heaviest:
                if i < n_items:
                    kinds.append("item")
                    labels.append(items[elements[i].at].item_id)
                else:
                    text = texts[elements[i].at]
                    kinds.append(text.kind)
                    labels.append(text.text)
                    vectors.append(text.vector)
                order[k] = i
                k += 1
                reach += fabs(coefficients[i])
        rows_made, told_made = np.empty(k, np.int64), np.empty(k, np.float32)
        told_rows, told = rows_made, told_made
        for i in range(k):
            told_rows[i], told[i] = elements[order[i]].row, <float>coefficients[order[i]]
        evidences.append(
            make(tuple(kinds), tuple(labels), rows_made, told_made, tuple(vectors), reach or 1.0)
        )
    return evidences


def tell(
    list item_ids,
    const float[::1] scores,
    const int64_t[:, ::1] columns,
    const float[:, ::1] shares,
    list starts,
    evidences,
    double least_share,
    tuple names,
):
    """Return the items with their reasons as reasons.tell does; ``names`` are its _NATIVE_NAMES.

    A float has so few bits that its product with a power of ten is exact: what is rounded here is
    the number that Python's ``round`` gives.
    """
    cdef int64_t width = 0, shopper, at, j, column, begin
    cdef double share, weight
    cdef dict text_kind, source_of
    cdef tuple extras, kinds, labels
    cdef list lists = [], items, reasons
    text_kind, extras, source_of, nothing = names
    for evidence in evidences:
        width = max(width, <int64_t>len(evidence.kinds))
    for shopper in range(len(evidences)):
        evidence = evidences[shopper]
        kinds, labels, begin, items = evidence.kinds, evidence.labels, starts[shopper], []
        for at in range(begin, starts[shopper + 1]):
            reasons = []
            for j in range(MOST):
                share, column = shares[at, j], columns[at, j]
                if share < least_share:
                    break
                weight = rint(share * 1e4) / 1e4
                if column >= 2 * width:
                    reasons.append(_Reason(extras[column - 2 * width], weight))
                    continue
                if column >= width:
                    kind, label = "taken_together", labels[column - width]
                else:
                    kind, label = text_kind[kinds[column]], labels[column]
                if kind == "matches_search":
                    reasons.append(_Reason(kind, weight, None, label))
                elif kind == "matches_interest":
                    reasons.append(_Reason(kind, weight, None, None, label))
                else:
                    reasons.append(_Reason(kind, weight, label))
            if not reasons:
                reasons.append(nothing)
            items.append(
                _Item(
                    item_ids[at],
                    at - begin + 1,
                    rint(<double>scores[at] * 1e6) / 1e6,
                    source_of[(<object>reasons[0]).kind],
                    reasons,
                )
            )
        lists.append(items)
    return lists


cdef struct Best:
    # The n largest values, the least of them at the root of a heap; of equal ones the lowest rows.
    int64_t n
    int64_t limit
    float* values
    int64_t* rows
    int64_t* places


cdef inline bint _less(Best* best, int64_t a, int64_t b) noexcept nogil:
    if best.values[a] != best.values[b]:
        return best.values[a] < best.values[b]
    return best.rows[a] > best.rows[b]


cdef inline void _swap(Best* best, int64_t a, int64_t b) noexcept nogil:
    cdef float value = best.values[a]
    cdef int64_t row = best.rows[a], place = best.places[a]
    best.values[a], best.rows[a], best.places[a] = best.values[b], best.rows[b], best.places[b]
    best.values[b], best.rows[b], best.places[b] = value, row, place


cdef void _sink(Best* best, int64_t at, int64_t n) noexcept nogil:
    cdef int64_t child
    while True:
        child = 2 * at + 1
        if child >= n:
            return
        if child + 1 < n and _less(best, child + 1, child):
            child += 1
        if not _less(best, child, at):
            return
        _swap(best, at, child)
        at = child


cdef void _offer(Best* best, float value, int64_t row, int64_t place) noexcept nogil:
    cdef int64_t at
    if best.n < best.limit:
        at = best.n
        best.n += 1
        best.values[at], best.rows[at], best.places[at] = value, row, place
        while at and _less(best, at, (at - 1) // 2):
            _swap(best, at, (at - 1) // 2)
            at = (at - 1) // 2
        return
    if value < best.values[0] or (value == best.values[0] and row > best.rows[0]):
        return
    best.values[0], best.rows[0], best.places[0] = value, row, place
    _sink(best, 0, best.n)


cdef void _sort(Best* best) noexcept nogil:
    # Largest first: the least goes behind all others, over and over.
    cdef int64_t n = best.n
    while n > 1:
        n -= 1
        _swap(best, 0, n)
        _sink(best, 0, n)


cdef struct Pool:
    # The candidates of all shoppers so far; those of the one at hand begin at ``first``.
    int64_t n_rows
    int64_t n
    int64_t first
    int64_t shopper
    const uint8_t* allowed
    # By row: where it lies behind ``first``, or one of the two below.
    int32_t* place
    int64_t* owners
    int64_t* rows
    float* text


cdef enum:
    NOWHERE = -1
    BARRED = -2


cdef inline int64_t _at(Pool* pool, int64_t row) noexcept nogil:
    """Return where a row lies in the pool, and put it there if need be; -1 if it may not."""
    cdef int64_t at
    if row < 0 or row >= pool.n_rows:
        return -1
    if pool.place[row] >= 0:
        return pool.first + pool.place[row]
    if pool.place[row] == BARRED or not pool.allowed[row]:
        return -1
    at = pool.n
    pool.n += 1
    pool.place[row] = <int32_t>(at - pool.first)
    pool.owners[at], pool.rows[at], pool.text[at] = pool.shopper, row, NAN
    return at


def merge(
    const int64_t[::1] found_starts,
    const int64_t[::1] found_rows,
    const float[::1] found_text,
    const int64_t[::1] foreseen_starts,
    const int64_t[::1] foreseen_rows,
    const int64_t[::1] popular_starts,
    const int64_t[::1] popular_rows,
    const int64_t[::1] new_rows,
    const int64_t[::1] element_starts,
    const int64_t[::1] element_rows,
    const float[::1] coefficients,
    const int64_t[::1] pair_elements,
    const int64_t[::1] pair_rows,
    const float[::1] pair_strengths,
    const int64_t[::1] barred_starts,
    const int64_t[::1] barred_rows,
    const uint8_t[::1] recommendable,
):
    """Return the columns of Pools (models/candidates.py) but ``fit``: owners, rows, text, together,
    popular, new_arrival, entries and history.

    ``*_starts``, (b + 1,), say where in ``*_rows`` those of each shopper begin; ``recommendable``
    is by row. A shopper's candidates come in the order in which they are first mentioned.
    """
    cdef int64_t n_shoppers = element_starts.shape[0] - 1
    cdef int64_t n_new = new_rows.shape[0], n_pairs = pair_rows.shape[0]
    cdef int64_t most = (
        found_rows.shape[0] + foreseen_rows.shape[0] + popular_rows.shape[0]
        + n_shoppers * n_new + n_pairs
    )
    owners_made, rows_made = np.empty(most, np.int64), np.empty(most, np.int64)
    text_made, together_made = np.empty(most, np.float32), np.zeros(most, np.float32)
    popular_made, new_made = np.zeros(most, np.float32), np.zeros(most, np.float32)
    entries_made = np.full(n_pairs, NOWHERE, np.int64)
    history_made = np.full(element_rows.shape[0], NOWHERE, np.int64)
    cdef int64_t[::1] owners = owners_made, rows = rows_made
    cdef int64_t[::1] entries = entries_made, history = history_made
    cdef float[::1] text = text_made, together = together_made
    cdef float[::1] popular = popular_made, new = new_made
    cdef int64_t shopper, i, at, row, begin, end, pair = 0
    cdef Pool pool
    if not most:
        return (owners_made, rows_made, text_made, together_made, popular_made, new_made,
                entries_made, history_made)
    pool.n_rows, pool.n = recommendable.shape[0], 0
    pool.allowed = &recommendable[0] if pool.n_rows else NULL
    pool.owners, pool.rows, pool.text = &owners[0], &rows[0], &text[0]
    pool.place = <int32_t*>malloc((pool.n_rows + 1) * sizeof(int32_t))
    if pool.place == NULL:
        raise MemoryError
    with nogil:
        memset(pool.place, 0xFF, (pool.n_rows + 1) * sizeof(int32_t))  # NOWHERE
        for shopper in range(n_shoppers):
            pool.first, pool.shopper = pool.n, shopper
            for i in range(barred_starts[shopper], barred_starts[shopper + 1]):
                if 0 <= barred_rows[i] < pool.n_rows:
                    pool.place[barred_rows[i]] = BARRED
            for i in range(found_starts[shopper], found_starts[shopper + 1]):
                at = _at(&pool, found_rows[i])
                if at >= 0:
                    text[at] = found_text[i]
            for i in range(foreseen_starts[shopper], foreseen_starts[shopper + 1]):
                _at(&pool, foreseen_rows[i])
            begin, end = popular_starts[shopper], popular_starts[shopper + 1]
            for i in range(begin, end):
                at = _at(&pool, popular_rows[i])
                if at >= 0:
                    popular[at] = 1.0 - <float>(i - begin) / <float>(end - begin)
            for i in range(n_new):
                at = _at(&pool, new_rows[i])
                if at >= 0:
                    new[at] = 1.0 - <float>i / <float>n_new
            begin, end = element_starts[shopper], element_starts[shopper + 1]
            while pair < n_pairs and pair_elements[pair] < end:
                at = _at(&pool, pair_rows[pair])
                if at >= 0:
                    entries[pair] = at
                    together[at] += coefficients[pair_elements[pair]] * pair_strengths[pair]
                pair += 1
            for i in range(begin, end):
                row = element_rows[i]
                if 0 <= row < pool.n_rows and pool.place[row] >= 0:
                    history[i] = pool.first + pool.place[row]
            for i in range(pool.first, pool.n):
                pool.place[rows[i]] = NOWHERE
            for i in range(barred_starts[shopper], barred_starts[shopper + 1]):
                if 0 <= barred_rows[i] < pool.n_rows:
                    pool.place[barred_rows[i]] = NOWHERE
    free(pool.place)
    return (owners_made[:pool.n], rows_made[:pool.n], text_made[:pool.n], together_made[:pool.n],
            popular_made[:pool.n], new_made[:pool.n], entries_made, history_made)


cdef inline const float* _vector(
    const float[:, ::1] vectors, const int64_t[::1] places, int64_t row
) noexcept nogil:
    """Return an item's vector, NULL where it has none: it may have been dropped meanwhile."""
    if row >= places.shape[0] or places[row] < 0:
        return NULL
    return &vectors[places[row], 0]


cdef struct Room:
    # For one shopper at a time; sizes as in choose().
    float* known
    float* bound
    float* score
    const float** vectors
    float* nearest
    float* parts
    Best best
    Best bounds


def choose(
    const int64_t[::1] starts,
    const int64_t[::1] rows,
    const uint8_t[::1] allowed,
    const float[::1] text,
    const float[::1] fit,
    const float[::1] together,
    const float[::1] popular,
    const float[::1] new_arrival,
    const int64_t[::1] entries,
    const int64_t[::1] history,
    const float[::1] beyond,
    const int64_t[::1] element_starts,
    const float[::1] coefficients,
    const float[:, ::1] elements,
    const float[:, ::1] queries,
    const float[:, ::1] long_interests,
    const float[:, ::1] short_interests,
    const float[::1] long_shares,
    const float[::1] short_shares,
    const float[::1] reach,
    const uint8_t[::1] is_blank,
    const int64_t[::1] pair_elements,
    const float[::1] pair_strengths,
    const int64_t[::1] places,
    const float[:, ::1] vectors,
    float text_share,
    float popular_weight,
    float new_weight,
    float learnt_weight,
    float repeat_penalty,
    int64_t n_best,
    int64_t k,
    float diversity,
):
    """Return the picks: positions in the pools (p,), scores (p,), where those of each shopper begin
    (b + 1,), and the columns and weights, (p, MOST), of what speaks most for each, columns as in
    reasons.weightiest for a width of the most elements that a shopper has.

    ``starts`` (b + 1,) is by shopper; what is not ``allowed`` (m,) is not picked; ``places`` says
    by row which of ``vectors`` is the item's.
    """
    cdef int64_t n_shoppers = starts.shape[0] - 1, dim = vectors.shape[1]
    cdef int64_t n_pairs = pair_elements.shape[0], longest = 0, width = 0, shopper
    for shopper in range(n_shoppers):
        longest = max(longest, starts[shopper + 1] - starts[shopper])
        width = max(width, element_starts[shopper + 1] - element_starts[shopper])
    cdef int64_t n_columns = 2 * width + 4, wide = 4 * n_best
    positions_made = np.empty(n_shoppers * k, np.int64)
    scores_made = np.empty(n_shoppers * k, np.float32)
    starts_made = np.zeros(n_shoppers + 1, np.int64)
    columns_made = np.zeros((n_shoppers * k, MOST), np.int64)
    weights_made = np.zeros((n_shoppers * k, MOST), np.float32)
    cdef int64_t[::1] positions = positions_made, made_starts = starts_made
    cdef float[::1] scores = scores_made
    cdef int64_t[:, ::1] columns = columns_made
    cdef float[:, ::1] weights = weights_made
    cdef Room room
    cdef int64_t n = 0, pair = 0, pairs_end, begin, end, e_begin, e_end, i, j, at, place, picked
    cdef int64_t m, count
    cdef float value, least, low, high, most, weight
    cdef const float* vector
    cdef float* parts
    cdef bint against
    room_made = np.empty(
        3 * longest + n_best + k * n_columns + n_best + wide, np.float32
    )
    own_made = np.zeros(longest, np.uint8)
    numbers_made = np.empty(2 * (n_best + wide), np.int64)
    pointers_made = np.empty(n_best, np.uintp)
    # Which pick each candidate of the shopper is, -1 for none.
    pick_of_made = np.full(longest, -1, np.int32)
    cdef float[::1] floats = room_made
    cdef uint8_t[::1] own = own_made
    cdef int64_t[::1] numbers = numbers_made
    cdef int32_t[::1] pick_of = pick_of_made
    cdef size_t[::1] pointers = pointers_made
    if not longest or not k:
        return positions_made[:0], scores_made[:0], starts_made, columns_made[:0], weights_made[:0]
    room.known = &floats[0]
    room.bound = room.known + longest
    room.score = room.bound + longest
    room.nearest = room.score + longest
    room.parts = room.nearest + n_best
    room.best.values = room.parts + k * n_columns
    room.bounds.values = room.best.values + n_best
    room.best.rows = &numbers[0]
    room.best.places = room.best.rows + n_best
    room.bounds.rows = room.best.places + n_best
    room.bounds.places = room.bounds.rows + wide
    room.best.limit = n_best
    room.vectors = <const float**>&pointers[0]
    with nogil:
        for shopper in range(n_shoppers):
            made_starts[shopper] = n
            begin, end = starts[shopper], starts[shopper + 1]
            e_begin, e_end = element_starts[shopper], element_starts[shopper + 1]
            m = end - begin
            pairs_end = pair
            while pairs_end < n_pairs and pair_elements[pairs_end] < e_end:
                pairs_end += 1
            if is_blank[shopper] or not m:
                pair = pairs_end
                continue
            against = False
            for i in range(e_begin, e_end):
                if coefficients[i] < 0:
                    against = True
            # What is sure of each, and what it may come to: `promising`.
            memset(&own[0], 0, m)
            for i in range(e_begin, e_end):
                if history[i] >= 0:
                    own[history[i] - begin] = 1
            room.best.n = 0
            for i in range(m):
                at = begin + i
                value = popular_weight * popular[at] + new_weight * new_arrival[at]
                value += learnt_weight * fit[at]
                value = value * reach[shopper] + (1 - text_share) * together[at]
                room.known[i] = value
                room.bound[i] = value + (beyond[shopper] if isnan(text[at]) else text[at])
                if not allowed[at]:
                    continue
                if not (isnan(text[at]) or against or own[i]):
                    _offer(&room.best, room.bound[i], rows[at], i)
            least = room.best.values[0] if room.best.n == n_best else -INFINITY
            room.bounds.n, room.bounds.limit = 0, wide
            for i in range(m):
                at = begin + i
                if allowed[at] and room.bound[i] >= least and _vector(vectors, places, rows[at]):
                    _offer(&room.bounds, room.bound[i], rows[at], i)
            # The scores of these: `score`. What a shopper's own items lose comes last.
            for j in range(room.bounds.n):
                i = room.bounds.places[j]
                vector = _vector(vectors, places, rows[begin + i])
                if j + AHEAD < room.bounds.n:
                    # They lie far apart: what comes next is fetched while this is looked at.
                    at = begin + room.bounds.places[j + AHEAD]
                    prefstream_fetch(_vector(vectors, places, rows[at]), dim)
                value = room.known[i] + prefstream_dot(vector, &queries[shopper, 0], dim)
                if against:
                    for at in range(e_begin, e_end):
                        if coefficients[at] < 0:
                            weight = prefstream_dot(vector, &elements[at, 0], dim)
                            if weight > 0:
                                value += text_share * coefficients[at] * weight
                room.score[i] = value
            for at in range(e_begin, e_end):
                if history[at] >= 0 and coefficients[at] > 0:
                    i = history[at] - begin
                    vector = _vector(vectors, places, rows[begin + i])
                    if not vector:
                        continue
                    value = text_share * coefficients[at] * prefstream_dot(vector, vector, dim)
                    weight = fit[begin + i] if fit[begin + i] > 0 else 0
                    value += (repeat_penalty + learnt_weight * weight) * reach[shopper]
                    room.score[i] -= value
            room.best.n = 0
            for j in range(room.bounds.n):
                i = room.bounds.places[j]
                _offer(&room.best, room.score[i], rows[begin + i], i)
            if not room.best.n:
                pair = pairs_end
                continue
            _sort(&room.best)
            # Each pick is the best that is left, less how near it is to those before:
            # `pick_diverse`. In bounds are now what is left, how many picks each was compared
            # with, and the picks.
            count = room.best.n
            high, low = room.best.values[0], room.best.values[count - 1]
            value = high - low if high != low else 1
            for j in range(count):
                room.bounds.values[j] = (1 - diversity) * ((room.best.values[j] - low) / value)
                room.nearest[j] = 0
                room.bounds.rows[j] = 0
                room.vectors[j] = _vector(vectors, places, rows[begin + room.best.places[j]])
            # How near is looked up only for what would be picked: it can but lose by it.
            picked = 0
            while picked < min(k, count):
                place, most = 0, -INFINITY
                for j in range(count):
                    value = room.bounds.values[j]
                    if value <= most:
                        if value == -INFINITY:  # picked
                            continue
                        break  # they fall
                    value -= room.nearest[j]
                    if value > most:
                        place, most = j, value
                if diversity > 0 and room.bounds.rows[place] < picked:
                    for j in range(room.bounds.rows[place], picked):
                        value = diversity * prefstream_dot(
                            room.vectors[place], room.vectors[room.bounds.places[j]], dim
                        )
                        if value > room.nearest[place]:
                            room.nearest[place] = value
                    room.bounds.rows[place] = picked
                    continue
                room.bounds.values[place] = -INFINITY
                room.bounds.places[picked] = place
                i = room.best.places[place]
                positions[n + picked], scores[n + picked] = begin + i, room.best.values[place]
                picked += 1
            n += min(k, count)
            # Why: `weightiest`.
            count = n - made_starts[shopper]
            memset(room.parts, 0, count * n_columns * sizeof(float))
            for picked in range(count):
                at = positions[made_starts[shopper] + picked]
                i = at - begin
                pick_of[i] = <int32_t>picked
                parts = room.parts + picked * n_columns
                vector = _vector(vectors, places, rows[at])
                for j in range(e_begin, e_end):
                    if coefficients[j] > 0 and history[j] != at:
                        parts[j - e_begin] = (
                            prefstream_dot(vector, &elements[j, 0], dim)
                            * (text_share * coefficients[j])
                        )
                parts[2 * width] = reach[shopper] * long_shares[shopper] * prefstream_dot(
                    vector, &long_interests[shopper, 0], dim
                )
                value = reach[shopper] * short_shares[shopper] * prefstream_dot(
                    vector, &short_interests[shopper, 0], dim
                )
                if not own[i]:
                    value += learnt_weight * reach[shopper] * fit[at]
                parts[2 * width + 1] = value
                parts[2 * width + 2] = popular_weight * reach[shopper] * popular[at]
                parts[2 * width + 3] = new_weight * reach[shopper] * new_arrival[at]
            for j in range(pair, pairs_end):
                if entries[j] >= 0 and pick_of[entries[j] - begin] >= 0:
                    parts = room.parts + pick_of[entries[j] - begin] * n_columns
                    parts[width + pair_elements[j] - e_begin] = (
                        (1 - text_share) * coefficients[pair_elements[j]] * pair_strengths[j]
                    )
            for picked in range(count):
                at = made_starts[shopper] + picked
                pick_of[positions[at] - begin] = -1
                _weightiest(
                    room.parts + picked * n_columns, n_columns, &columns[at, 0], &weights[at, 0]
                )
            pair = pairs_end
        made_starts[n_shoppers] = n
    return positions_made[:n], scores_made[:n], starts_made, columns_made[:n], weights_made[:n]


cdef void _weightiest(
    const float* parts, int64_t n, int64_t* columns, float* weights
) noexcept nogil:
    """Write the MOST largest shares of what speaks for an item, and their columns."""
    cdef float total = 0
    cdef int64_t i, j
    for j in range(MOST):
        columns[j], weights[j] = 0, -1
    for i in range(n):
        if parts[i] > 0:
            total += parts[i]
        j = MOST
        while j and (parts[i] if parts[i] > 0 else 0) > weights[j - 1]:
            if j < MOST:
                weights[j], columns[j] = weights[j - 1], columns[j - 1]
            j -= 1
        if j < MOST:
            weights[j], columns[j] = (parts[i] if parts[i] > 0 else 0), i
    for j in range(MOST):
        weights[j] = weights[j] / (total if total > 1e-12 else <float>1e-12)
