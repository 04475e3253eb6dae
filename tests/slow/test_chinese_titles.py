"""Chinese queries find Chinese titles, by meaning and across languages."""

from __future__ import annotations

import numpy as np
import pytest
from e5_model import e5_folder
from numpy.typing import NDArray

from models.bert_encoder import BertEncoder
from models.weights import resolve

pytestmark = pytest.mark.slow

TITLES = [
    "红色连衣裙",
    "蓝牙耳机",
    "紫砂茶壶",
    "西湖龙井茶叶",
    "男士篮球鞋",
    "儿童绘本",
    "不锈钢炒锅",
    "蚕丝被",
    "防晒霜",
    "机械键盘",
]


@pytest.fixture(scope="module")
def encoder() -> BertEncoder:
    return BertEncoder(resolve(str(e5_folder())))


@pytest.fixture(scope="module")
def titles(encoder: BertEncoder) -> NDArray[np.float32]:
    """The titles' vectors, (n, dim)."""
    return encoder.encode(TITLES, "passage")


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("喝茶用的壶", "紫砂茶壶"),
        ("女生穿的裙子", "红色连衣裙"),
        ("打球穿的运动鞋", "男士篮球鞋"),
        ("给宝宝讲故事的书", "儿童绘本"),
        ("无线耳塞", "蓝牙耳机"),
        ("炒菜的锅", "不锈钢炒锅"),
        ("打字用的", "机械键盘"),
        ("夏天不晒黑", "防晒霜"),
        ("basketball shoes", "男士篮球鞋"),
        ("red dress", "红色连衣裙"),
    ],
)
def test_a_query_finds_its_title(
    encoder: BertEncoder, titles: NDArray[np.float32], query: str, title: str
) -> None:
    scores = encoder.encode([query], "query")[0] @ titles.T
    assert TITLES[int(scores.argmax())] == title


def test_queries_and_passages_get_prefixes_of_their_own(encoder: BertEncoder) -> None:
    query, passage = (encoder.encode(["紫砂茶壶"], side)[0] for side in ("query", "passage"))
    assert 0.8 < query @ passage < 0.9999


def test_different_titles_have_different_vectors(titles: NDArray[np.float32]) -> None:
    # A tokenizer that does not know the characters would give every text the same.
    others = titles @ titles.T - 2 * np.eye(len(TITLES))
    assert others.max() < 0.98


def test_a_long_chinese_text_is_cut_and_counted(encoder: BertEncoder) -> None:
    before = encoder.n_truncated
    assert encoder.encode(["这款茶壶做工精细，出水流畅。" * 200]).shape == (1, 384)
    assert encoder.n_truncated == before + 1
