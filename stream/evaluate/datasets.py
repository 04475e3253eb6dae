"""Public data sets of the evaluations, as arrays; each in the folder that its loader names."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.splits import History
from stream.formats.online_retail import read_online_retail
from stream.formats.source import BadSource, ReadReport
from stream.training.churn import Act, read_acts
from stream.training.sentiment import RatedReview, reviews_of_table


class DataMissing(ValueError):
    """Files of a data set are not there, or not what they should be; the text names them."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Who took what, oldest first; ``titles`` by item number, empty where there is none."""

    users: list[History]
    titles: list[str]

    @property
    def n_items(self) -> int:
        return len(self.titles)


def load_amazon_beauty(data: Path) -> Sequences:
    """Return ``amazon_beauty``: 22,363 users and 12,101 items, in order but without times.

    The sequences are those of S3-Rec and most papers since; item n of the file is n - 1 here.
    """
    folder = data / "amazon_beauty"
    with _opened(folder / "sequential.txt.gz") as lines:
        users = [np.array(line.split()[1:], np.int64) - 1 for line in lines]
    with _opened(folder / "datamaps.json.gz") as file:
        asin_of: dict[str, str] = json.load(file)["id2item"]
    with _opened(folder / "item_id_to_int.json.gz") as file:
        number_of: dict[str, int] = json.load(file)
    with _opened(folder / "products_lookup.csv.gz") as file:
        name_of = {int(row["global_product_id"]): row["name"] for row in csv.DictReader(file)}
    asins = [asin_of[str(number)] for number in range(1, len(asin_of) + 1)]
    titles = [name_of.get(number_of.get(asin, -1), "") for asin in asins]
    return Sequences(users, titles)


@dataclass(frozen=True, slots=True)
class Rated:
    """A query, the numbers of the items that were rated for it, (n,), and their grades, (n,)."""

    query: str
    items: NDArray[np.int64]
    grades: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratings:
    """Products by item number, and how well they answer queries."""

    titles: list[str]
    descriptions: list[str]
    queries: list[Rated]


def load_chorus_search(data: Path) -> Ratings:
    """Return ``chorus_search``: 2,349 products rated 0 to 3 for 135 queries.

    The grade is the file's ``final_rating``, on which its three raters agreed.
    """
    path = data / "chorus_search" / "Broad_Query_Set_individual_ratings.csv"
    with _opened(path) as file:
        rows = list(csv.DictReader(file))
    number_of: dict[str, int] = {}
    titles, descriptions = list[str](), list[str]()
    rated: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row["docid"] not in number_of:
            number_of[row["docid"]] = len(titles)
            titles.append(row["name"])
            descriptions.append(row["description"])
        of_query = rated.setdefault(row["query"], [])
        of_query.append((number_of[row["docid"]], float(row["final_rating"])))
    queries = [
        Rated(query, np.array([n for n, _ in of_it]), np.array([grade for _, grade in of_it]))
        for query, of_it in rated.items()
    ]
    return Ratings(titles, descriptions, queries)


@dataclass(frozen=True, slots=True)
class Cdnow:
    """Purchases of CDNOW's new customers of early 1997, in time order, and who is in the published
    sample of a tenth of them."""

    acts: list[Act]
    sample: frozenset[str]


def load_cdnow(data: Path) -> Cdnow:
    """Return ``cdnow``: 69,659 purchases by 23,570 customers until 1998-06-30, taken as at noon."""
    folder = data / "cdnow"
    acts = []
    for row in _numbers(folder / "CDNOW_master.txt", 4):
        customer, day, discs, dollars = row
        noon = datetime.strptime(day + "12", "%Y%m%d%H").replace(tzinfo=timezone.utc)
        # A few orders are of no disc: their value counts once.
        quantity = max(float(discs), 1.0)
        price = float(dollars) / quantity
        acts.append(Act(round(noon.timestamp() * 1000), customer, "purchase", price, quantity))
    sample = frozenset(row[0] for row in _numbers(folder / "CDNOW_sample.txt", 5))
    return Cdnow(sorted(acts, key=lambda act: act.event_time_ms), sample)


def load_online_retail(data: Path) -> list[Act]:
    """Return the acts of ``online_retail``, December 2009 to December 2010, in time order."""
    path = data / "online_retail" / "online_retail_2009_2010.parquet"
    try:
        return read_acts(read_online_retail(path, ReadReport()))
    except BadSource as error:
        raise DataMissing(f"{error}; '--data' names the folder above") from error


def load_online_shopping(data: Path) -> list[RatedReview]:
    """Return ``online_shopping_10_cats``: 62,773 Chinese reviews, half of them of the content."""
    return _reviews(data / "online_shopping_10_cats" / "online_shopping_10_cats.csv.gz")


def load_womens_clothing(data: Path) -> list[RatedReview]:
    """Return ``womens_clothing_reviews``: 20,000 English reviews with stars, but for three."""
    return _reviews(data / "womens_clothing_reviews" / "reviews.csv.gz")


def _reviews(path: Path) -> list[RatedReview]:
    try:
        return list(reviews_of_table(path))
    except BadSource as error:
        raise DataMissing(f"{error}; '--data' names the folder above") from error


def _numbers(path: Path, n_columns: int) -> Iterator[list[str]]:
    """Yield the lines of a table of numbers, without its heading."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise DataMissing(f"{path}: {error.strerror}; '--data' names the folder above") from error
    for line in text.splitlines():
        row = line.split()
        if len(row) == n_columns and row[0].isdigit():
            yield row


def _opened(path: Path) -> Any:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataMissing(f"{path}: {error.strerror}; '--data' names the folder above") from error
