"""Public data sets of the evaluations, as arrays; each in the folder that its loader names."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.splits import History


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


def _opened(path: Path) -> Any:
    try:
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    except OSError as error:
        raise DataMissing(f"{path}: {error.strerror}; '--data' names the folder above") from error
