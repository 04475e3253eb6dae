"""What any TextEncoder must do: the stand-in of the tests, and BERT by each runtime and device."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from fakes import HashEncoder
from numpy.typing import NDArray

from models.bert_encoder import BertEncoder
from models.encoder import Side, TextEncoder
from models.runtimes import Runtime, has_openvino
from models.weights import resolve

TEXTS = [
    "Trail running shoes",
    "Espresso cup",
    "yarn",
    "A warm winter jacket with a hood, four pockets and a lining of recycled wool",
    "Trail running shoes",
]
LONG = "warm wool socks " * 2_000


@cache
def bert(device: str, runtime: Runtime = "torch") -> BertEncoder:
    """One model per device, runtime and session: it takes seconds to load."""
    if runtime == "openvino" and not has_openvino():
        pytest.skip("openvino is not installed")
    return BertEncoder(resolve("all-MiniLM-L6-v2"), device=device, runtime=runtime, max_tokens=64)


@pytest.fixture(
    params=[
        pytest.param(HashEncoder, id="hash"),
        pytest.param(lambda: bert("cpu"), id="cpu", marks=pytest.mark.slow),
        pytest.param(lambda: bert("cpu", "openvino"), id="openvino", marks=pytest.mark.slow),
        pytest.param(lambda: bert("cuda"), id="cuda", marks=pytest.mark.gpu),
    ]
)
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    return request.param()  # type: ignore[no-any-return]


@pytest.fixture(
    params=[
        pytest.param(("cpu", "torch"), id="cpu", marks=pytest.mark.slow),
        pytest.param(("cpu", "openvino"), id="openvino", marks=pytest.mark.slow),
        pytest.param(("cuda", "torch"), id="cuda", marks=pytest.mark.gpu),
    ]
)
def real(request: pytest.FixtureRequest) -> BertEncoder:
    return bert(*request.param)


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each row of unit vectors with the same row, shape (n,)."""
    return np.einsum("nd,nd->n", a, b)


@pytest.mark.parametrize("side", ["query", "passage"])
@pytest.mark.parametrize(
    "text",
    [
        *TEXTS[:2],
        "",
        " \n\t",
        "\x00\x07",
        "。，！",
        "红色连衣裙",
        "👟🏃",
        pytest.param("x" * 50_000, id="one-long-word"),
        pytest.param(LONG, id="long"),
    ],
)
def test_any_text_has_a_unit_vector(encoder: TextEncoder, text: str, side: Side) -> None:
    vectors = encoder.encode([text], side)
    assert vectors.shape == (1, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_vectors(encoder: TextEncoder) -> None:
    vectors = encoder.encode([])
    assert (vectors.shape, vectors.dtype) == ((0, encoder.dim), np.float32)


def test_vectors_come_in_the_order_of_the_texts(encoder: TextEncoder) -> None:
    texts = ["word " * n + f"number {n}" for n in (9, 1, 30, 4, 0, 17)]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    between = encoder.encode(texts) @ alone.T
    assert between.argmax(axis=1).tolist() == list(range(len(texts)))


def test_a_vector_does_not_depend_on_its_neighbours(encoder: TextEncoder) -> None:
    crowd = [*TEXTS, *(f"{'padding ' * (n % 20)}{n}" for n in range(70)), LONG]
    together = encoder.encode(crowd)[: len(TEXTS)]
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert cosines(together, alone).min() > 0.9999


def test_the_same_text_lies_in_the_same_place(encoder: TextEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert cosines(vectors[:1], vectors[-1:])[0] > 0.9999
    assert cosines(vectors[:1], vectors[1:2])[0] < 0.9


def test_a_query_lies_near_what_it_names(encoder: TextEncoder) -> None:
    passages = encoder.encode(TEXTS[:4], "passage")
    queries = encoder.encode(["running shoes", "a cup"], "query")
    assert (queries @ passages.T).argmax(axis=1).tolist() == [0, 1]


def test_another_space_has_another_name(encoder: TextEncoder) -> None:
    assert encoder.encoder_id
    assert encoder.encoder_id != HashEncoder(dim=16).encoder_id


# --- what only a model does ----------------------------------------------------------------------


def test_a_long_text_is_cut_and_counted(real: BertEncoder) -> None:
    before = real.n_truncated
    vectors = real.encode([LONG, "short", "warm wool socks " * 100])
    assert real.n_truncated - before == 2
    # What was cut off changes nothing, whether the tokenizer cut it or we did.
    assert cosines(vectors[:1], vectors[2:])[0] > 0.9999


def test_a_text_of_just_the_limit_is_not_cut(real: BertEncoder) -> None:
    before = real.n_truncated
    real.encode(["wool " * (real.max_tokens - 2)])  # two tokens are the model's own
    assert real.n_truncated == before
    real.encode(["wool " * (real.max_tokens - 1)])
    assert real.n_truncated == before + 1


def test_meaning_counts_not_words(real: BertEncoder) -> None:
    query, near, far = real.encode(["sneakers for jogging", "Running shoes", "Espresso cup"])
    assert query @ near > query @ far + 0.3


@pytest.mark.slow
def test_runtimes_agree() -> None:
    ours, torchs = bert("cpu", "openvino"), bert("cpu")
    assert ours.encoder_id == torchs.encoder_id
    assert cosines(ours.encode(TEXTS), torchs.encode(TEXTS)).min() > 0.9995


@pytest.mark.gpu
def test_a_gpu_and_the_cpu_agree() -> None:
    assert bert("cuda").encoder_id == bert("cpu").encoder_id
    assert cosines(bert("cuda").encode(TEXTS), bert("cpu").encode(TEXTS)).min() > 0.999
