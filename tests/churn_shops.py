"""A shop of simulated customers, whose log churn is learnt from."""

from __future__ import annotations

import numpy as np

from models.activity import DAY_MS
from stream.training.churn import Act

FIRST_MS = 1_700_000_000_000
DAYS = 200
END_MS = FIRST_MS + DAYS * DAY_MS


def simulated_acts(n_users: int = 400, seed: int = 0) -> list[Act]:
    """Return acts in time order: customers of unlike rates, most of whom leave at some time.

    Before a purchase there is often a look; a few review.
    """
    rng = np.random.default_rng(seed)
    acts = []
    for user in range(n_users):
        day = rng.uniform(0, DAYS / 2)
        gap, stays = rng.gamma(2.0, 10.0) + 1.0, rng.uniform(0.5, 0.98)
        while day < DAYS:
            at_ms = FIRST_MS + round(day * DAY_MS)
            if rng.random() < 0.5:
                acts.append(Act(at_ms, f"u{user}", "view"))
            price = float(rng.lognormal(3.0, 0.5))
            acts.append(Act(at_ms + 1000, f"u{user}", "purchase", price, 1.0))
            if rng.random() < 0.1:
                acts.append(
                    Act(at_ms + 2000, f"u{user}", "review", rating=float(rng.integers(1, 6)))
                )
            if rng.random() > stays:
                break
            day += rng.exponential(gap)
    return sorted(acts, key=lambda act: act.event_time_ms)
