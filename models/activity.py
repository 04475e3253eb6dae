"""Activity: what churn needs from a user's acts, folded one act at a time, in any order.

Every field is a minimum, a maximum, a count, a sum, or a sum decayed as of the newest act, so the
order of arrival does not matter (sums of floats: up to rounding).

A purchase occasion is a UTC day with at least one purchase: the lines of one order are one
occasion. Distinct days cannot be counted exactly in a few bytes for all time, so they are kept as
bits for the ``WINDOW_DAYS`` days up to the last purchase. Which days those are depends on the
purchases alone, not on their order, and within the window the count is exact. Older occasions are
dropped; an order placed around UTC midnight counts twice.
"""

from __future__ import annotations

from typing import NamedTuple

DAY_MS = 86_400_000
#: Purchase days are remembered this far back from the last one; a multiple of 8.
WINDOW_DAYS = 512
#: Half-lives of the two activity sums; their ratio is the trend.
SHORT_HALF_LIFE_MS = 7 * DAY_MS
LONG_HALF_LIFE_MS = 60 * DAY_MS

_WINDOW = (1 << WINDOW_DAYS) - 1


class Activity(NamedTuple):
    """Counters of one user's acts. Times are epoch ms, 0 = never."""

    first_ms: int = 0
    last_ms: int = 0
    first_purchase_ms: int = 0
    last_purchase_ms: int = 0
    n_acts: int = 0
    # Purchase events, that is order lines; occasions are ``n_purchase_days``.
    n_purchases: int = 0
    n_priced: int = 0
    # Reviews with a rating, and dislikes.
    n_ratings: int = 0
    n_dislikes: int = 0
    # Sum of price * quantity over the n_priced purchases whose price is known.
    spend: float = 0.0
    # Sums of acts, decayed by the two half-lives, as of last_ms.
    short_acts: float = 0.0
    long_acts: float = 0.0
    # Sum of (rating - 3) / 2 over the rated reviews, each -1..1.
    satisfaction: float = 0.0
    # Bit i: a purchase i days before the day of last_purchase_ms; WINDOW_DAYS bits.
    purchase_days: int = 0

    @property
    def n_purchase_days(self) -> int:
        """Return the purchase occasions within WINDOW_DAYS of the last one."""
        return self.purchase_days.bit_count()

    @property
    def purchase_span_days(self) -> int:
        """Return the days from the oldest remembered purchase day to the newest."""
        return max(self.purchase_days.bit_length() - 1, 0)


NO_ACTIVITY = Activity()


def fold_activity(
    activity: Activity,
    kind: str,
    event_time_ms: int,
    price: float | None = None,
    quantity: float | None = None,
    rating: float | None = None,
) -> Activity:
    """Add one act; the order in which acts arrive does not matter, a repeat is counted again.

    ``kind`` is an interaction type, ``search`` or ``review``. An impression changes nothing:
    it is the shop's act. A missing quantity is 1; ``rating`` is 1..5 and read of reviews only.
    """
    if kind == "impression":
        return activity
    (first, last, first_bought, last_bought, n_acts, n_bought, n_priced, n_ratings,
     n_dislikes, spend, short, long, satisfaction, days) = activity  # fmt: skip
    if event_time_ms >= last:
        age_ms = event_time_ms - last
        short = short * 0.5 ** (age_ms / SHORT_HALF_LIFE_MS) + 1.0
        long = long * 0.5 ** (age_ms / LONG_HALF_LIFE_MS) + 1.0
        last = event_time_ms
    else:
        age_ms = last - event_time_ms
        short += 0.5 ** (age_ms / SHORT_HALF_LIFE_MS)
        long += 0.5 ** (age_ms / LONG_HALF_LIFE_MS)
    first = min(first, event_time_ms) if first else event_time_ms
    if kind == "purchase":
        days = _add_day(days, last_bought // DAY_MS, event_time_ms // DAY_MS)
        first_bought = min(first_bought, event_time_ms) if first_bought else event_time_ms
        last_bought = max(last_bought, event_time_ms)
        n_bought += 1
        if price is not None:
            n_priced += 1
            spend += price * (1.0 if quantity is None else quantity)
    elif kind == "review" and rating is not None:
        satisfaction += (rating - 3.0) / 2.0
        n_ratings += 1
    elif kind == "dislike":
        n_dislikes += 1
    return Activity(first, last, first_bought, last_bought, n_acts + 1, n_bought, n_priced,
                    n_ratings, n_dislikes, spend, short, long, satisfaction, days)  # fmt: skip


def _add_day(days: int, newest: int, day: int) -> int:
    """Set a day's bit, moving the window when the day is newer than the newest."""
    if not days:
        return 1
    ahead = day - newest
    if ahead <= 0:
        return (days | 1 << -ahead) & _WINDOW if ahead > -WINDOW_DAYS else days
    # A jump past the window leaves nothing; shifting that far would only build a huge number.
    return (days << ahead | 1) & _WINDOW if ahead < WINDOW_DAYS else 1
