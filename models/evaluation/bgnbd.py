"""BG/NBD: repeat buying and leaving for good, from three numbers a customer.

Fader, Hardie and Lee, "Counting Your Customers the Easy Way: An Alternative to the Pareto/NBD
Model" (Marketing Science 24(2), 2005). A customer buys at a rate that is gamma-distributed among
customers (r, alpha), and after each purchase leaves for good with a probability that is
beta-distributed among them (a, b).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, gammaln, hyp2f1

Floats = NDArray[np.float64]
# All four parameters are looked for between these, as logarithms: beyond, the data do not tell.
_LEAST, _MOST = 1e-4, 1e5


@dataclass(frozen=True, slots=True)
class Customers:
    """What the model knows of customers, one entry each, all in one unit of time.

    ``repeats`` are the purchases after the first, ``last`` the time from the first purchase to the
    last (0 without repeats), ``age`` the time from the first purchase to now.
    """

    repeats: Floats
    last: Floats
    age: Floats


@dataclass(frozen=True, slots=True)
class BgNbd:
    """The four parameters; ``alpha`` is in the unit of time of the customers fitted."""

    r: float
    alpha: float
    a: float
    b: float

    def alive(self, customers: Customers) -> Floats:
        """Return the probabilities of not having left for good, shape (n,)."""
        return np.asarray(1.0 / (1.0 + np.exp(self._log_odds_gone(customers))))

    def no_purchase(self, customers: Customers, horizon: float) -> Floats:
        """Return the probabilities of no purchase within the horizon, shape (n,).

        Those alive leave only after a purchase, so their first one has a gamma-mixed rate alone.
        """
        rested = (self.alpha + customers.age) / (self.alpha + customers.age + horizon)
        bought = 1.0 - rested ** (self.r + customers.repeats)
        return np.asarray(1.0 - self.alive(customers) * bought)

    def expected_purchases(self, customers: Customers, horizon: float) -> Floats:
        """Return the purchases to be expected within the horizon, shape (n,); the paper's (10)."""
        x, r, alpha, a, b = customers.repeats, self.r, self.alpha, self.a, self.b
        passed = alpha + customers.age
        rested = (passed / (passed + horizon)) ** (r + x)
        series = hyp2f1(r + x, b + x, a + b + x - 1.0, horizon / (passed + horizon))
        if_alive = (a + b + x - 1.0) / (a - 1.0) * (1.0 - rested * series)
        return np.asarray(if_alive * self.alive(customers))

    def log_likelihood(self, customers: Customers) -> float:
        """Return the log-likelihood of all customers; the paper's (6)."""
        x, r, a, b = customers.repeats, self.r, self.a, self.b
        if_alive = (
            gammaln(r + x)
            - gammaln(r)
            + r * np.log(self.alpha)
            - (r + x) * np.log(self.alpha + customers.age)
            + betaln(a, b + x)
            - betaln(a, b)
        )
        return float((if_alive + np.logaddexp(0.0, self._log_odds_gone(customers))).sum())

    def _log_odds_gone(self, customers: Customers) -> Floats:
        """Return the log-odds of having left; -inf without a repeat: the first is no chance."""
        x, last = customers.repeats, customers.last
        repeated = x > 0
        waited = np.log((self.alpha + customers.age) / (self.alpha + last))
        # Where x is 0 the value is not taken, but b + x - 1 may be negative.
        chance = np.log(self.a / np.where(repeated, self.b + x - 1.0, 1.0))
        return np.where(repeated, chance + (self.r + x) * waited, -np.inf)


def fit_bgnbd(customers: Customers) -> BgNbd:
    """Return the most likely parameters; raises ValueError when there is nobody, somebody without
    a first purchase, or times that are not in the order first purchase, last purchase, now."""
    if not len(customers.repeats):
        raise ValueError("expected customers, got none")
    if not (customers.repeats >= 0).all():
        raise ValueError("expected 0 or more repeats of every customer")
    if not ((customers.last >= 0) & (customers.last <= customers.age)).all():
        raise ValueError("expected 0 <= last <= age of every customer")
    # The mean: tolerances then mean the same for any number of customers.
    found = minimize(
        lambda logs: -BgNbd(*np.exp(logs)).log_likelihood(customers) / len(customers.repeats),
        np.zeros(4),
        method="L-BFGS-B",
        bounds=[(np.log(_LEAST), np.log(_MOST))] * 4,
        options={"ftol": 1e-12, "gtol": 1e-7},
    )
    return BgNbd(*np.exp(found.x).tolist())
