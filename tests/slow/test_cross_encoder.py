"""The packaged cross-encoder, and folders that hold something else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from models.cross_encoder import KNOWN, CrossEncoder, open_cross_encoder
from models.weights import ModelError, ModelNotFound, UnexpectedFiles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
    ),
]

NAME = "ms-marco-MiniLM-L-12-v2"


@pytest.fixture(scope="module")
def model() -> CrossEncoder:
    if importlib.util.find_spec(KNOWN[NAME].package) is None:
        pytest.skip(f"{NAME} needs {KNOWN[NAME].package} (with --no-deps)")
    return open_cross_encoder(NAME)


def test_what_answers_a_query_fits_it_best(model: CrossEncoder) -> None:
    texts = ["Espresso cup, white", "USB-C charger 65W", "Trail running shoes", "", "鞋" * 900]
    fits = model.scores([("running shoes", text) for text in texts])
    assert fits.shape == (5,)
    assert fits.argmax() == 2
    assert fits[2] > 5 > -5 > fits[0]


def test_company_changes_what_is_said_of_a_pair_by_little(model: CrossEncoder) -> None:
    pairs = [("lamp", f"desk lamp {'bright ' * (n % 7)}{n}") for n in range(40)]
    alone = np.concatenate([model.scores([pair]) for pair in pairs[:5]])
    # int8 rounds by the largest number of a batch; scores lie between -12 and 12.
    np.testing.assert_allclose(model.scores(pairs)[:5], alone, atol=2)


def test_its_name_tells_its_weights(model: CrossEncoder) -> None:
    assert model.name == f"{NAME}-{KNOWN[NAME].sha256[:12]}"


def test_a_package_with_other_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "someones_package" / "m"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "model.onnx").write_bytes(b"other weights")
    (folder / "tokenizer.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    known = type(KNOWN[NAME])("someones_package", "m", f"cross-encoder/{NAME}", "0" * 64)
    monkeypatch.setitem(KNOWN, NAME, known)
    with pytest.raises(UnexpectedFiles, match="expected sha256 0000"):
        open_cross_encoder(NAME)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"lacks model\.onnx"):
        open_cross_encoder(str(tmp_path))
    (tmp_path / "model.onnx").write_bytes(b"\x00 no model")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="reranker"):
        open_cross_encoder(str(tmp_path))
    with pytest.raises(ModelNotFound, match="looked for a folder"):
        open_cross_encoder("no-such-model")


def test_a_name_of_the_hub_is_fetched_from_there(tmp_path: Path) -> None:
    asked: list[str] = []

    def download(name: str) -> Path:
        asked.append(name)
        raise OSError("no network")

    with pytest.raises(ModelNotFound, match=r"the hub's someone/reranker \(no network\)"):
        open_cross_encoder("someone/reranker", download)
    assert asked == ["someone/reranker"]
