"""BG/NBD: what a customer's three numbers say of the purchases to come."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.bgnbd import BgNbd, Customers, fit_bgnbd

#: Fader, Hardie and Lee (2005): the CDNOW sample's first 39 weeks.
PUBLISHED = BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)


def customers(*of_each: tuple[float, float, float]) -> Customers:
    return Customers(*np.array(of_each, np.float64).T)


def simulated(truth: BgNbd, n: int, age: float, rng: np.random.Generator) -> Customers:
    rates = rng.gamma(truth.r, 1 / truth.alpha, n)
    leaves = rng.beta(truth.a, truth.b, n)
    repeats, last = np.zeros(n), np.zeros(n)
    for one in range(n):
        now = rng.exponential(1 / rates[one])
        while now < age:
            repeats[one], last[one] = repeats[one] + 1, now
            if rng.random() < leaves[one]:
                break
            now += rng.exponential(1 / rates[one])
    return Customers(repeats, last, np.full(n, age))


def test_the_authors_example_of_a_customer():
    # Two repeats, the last after 30.43 weeks of 38.86: the paper's note says 1.226 in 39 weeks.
    expected = PUBLISHED.expected_purchases(customers((2, 30.43, 38.86)), 39)
    assert expected == pytest.approx([1.226], abs=0.001)


def test_who_never_came_back_is_alive():
    assert PUBLISHED.alive(customers((0, 0, 38))) == pytest.approx([1.0])


def test_the_longer_silent_the_likelier_gone():
    alive = PUBLISHED.alive(customers((3, 30, 38), (3, 20, 38), (3, 10, 38)))
    assert alive[0] > alive[1] > alive[2]


def test_no_purchase_agrees_with_many_simulated_customers():
    truth, rng = BgNbd(0.8, 5.0, 0.6, 2.0), np.random.default_rng(0)
    whole = simulated(truth, 20_000, 60.0, rng)
    # Of nobody's past anything is known at their first purchase, so all are alike.
    silent = truth.no_purchase(customers((0, 0, 0)), 60.0)
    assert silent == pytest.approx([np.mean(whole.repeats == 0)], abs=0.01)
    expected = truth.expected_purchases(customers((0, 0, 0)), 60.0)
    assert expected == pytest.approx([whole.repeats.mean()], rel=0.03)


def test_the_parameters_of_simulated_customers_are_found():
    truth = BgNbd(0.8, 5.0, 0.6, 2.0)
    found = fit_bgnbd(simulated(truth, 20_000, 80.0, np.random.default_rng(1)))
    assert found.r == pytest.approx(truth.r, rel=0.1)
    assert found.alpha == pytest.approx(truth.alpha, rel=0.1)
    assert found.a / (found.a + found.b) == pytest.approx(0.6 / 2.6, rel=0.1)


@pytest.mark.parametrize("of_one", [(1, 5, 4), (1, -1, 4)], ids=["after-now", "before-first"])
def test_times_out_of_order_are_refused(of_one):
    with pytest.raises(ValueError, match="last <= age"):
        fit_bgnbd(customers(of_one))


def test_who_never_bought_is_refused():
    with pytest.raises(ValueError, match="0 or more repeats"):
        fit_bgnbd(customers((-1, 0, 4)))


def test_nobody_is_refused():
    with pytest.raises(ValueError, match="got none"):
        fit_bgnbd(Customers(np.empty(0), np.empty(0), np.empty(0)))
