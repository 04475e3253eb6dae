"""A model's name -> its files, and how its vectors are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.weights import (
    PINS,
    DenseFile,
    ModelNotFound,
    UnexpectedFiles,
    UnsupportedModel,
    download_from_hub,
    encoder_id,
    is_pinned,
    read_folder,
    resolve,
)

CONFIG = {"model_type": "bert", "hidden_size": 8, "max_position_embeddings": 512}
CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def modules(*kinds: str) -> list[dict[str, str]]:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    return [
        {"type": f"sentence_transformers.models.{kind}", "path": paths.get(kind, kind)}
        for kind in kinds
    ]


def dense(**changed: Any) -> dict[str, Any]:
    """The files of a dense layer, of 8 numbers to 4."""
    settings = {
        "in_features": 8,
        "out_features": 4,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    return {"Dense/config.json": {**settings, **changed}, "Dense/model.safetensors": b"layer"}


def write(folder: Path, files: dict[str, Any]) -> Path:
    """A model folder; a dict becomes JSON, None leaves the file out."""
    complete = {"config.json": CONFIG, "model.safetensors": b"weights", "tokenizer.json": {}}
    for name, content in {**complete, **files}.items():
        if content is None:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def no_hub(name: str, revision: str | None) -> Path:
    raise OSError(f"cannot reach the hub for {name}\nwith many more lines")


# --- finding -------------------------------------------------------------------------------------


def test_a_folder_is_named_after_itself(tmp_path: Path) -> None:
    found = resolve(str(write(tmp_path / "shop-bert", {})), no_hub)
    assert (found.name, found.dim, found.max_tokens) == ("shop-bert", 8, 512)
    assert found.weights == (tmp_path / "shop-bert/model.safetensors",)


def test_a_folder_in_the_home_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "shop-bert", {})
    assert resolve("~/shop-bert", no_hub).folder == (tmp_path / "shop-bert").resolve()


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_packaged_model_needs_no_hub(name: str) -> None:
    found = resolve(name, no_hub)
    assert (found.name, found.dim, found.pooling) == ("all-MiniLM-L6-v2", 384, "mean")
    assert found.query_prefix == found.passage_prefix == ""
    assert all(path.is_file() for path in found.weights)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        pytest.param("acme/bert", ("acme/bert", None), id="owner-and-name"),
        pytest.param("acme/bert@v2", ("acme/bert", "v2"), id="revision"),
        pytest.param(
            "multilingual-e5-small",
            ("intfloat/multilingual-e5-small", PINS["multilingual-e5-small"].revision),
            id="the-pinned-revision",
        ),
        pytest.param(
            "intfloat/multilingual-e5-small@main",
            ("intfloat/multilingual-e5-small", "main"),
            id="another-revision-of-a-pinned-model",
        ),
        pytest.param(
            "all-MiniLM-L6-v2@c9745ed",
            ("sentence-transformers/all-MiniLM-L6-v2", "c9745ed"),
            id="the-package-has-no-revision",
        ),
    ],
)
def test_a_hub_name_is_downloaded(name: str, asked: tuple[str, str | None], tmp_path: Path) -> None:
    calls: list[tuple[str, str | None]] = []

    def download(hub_name: str, revision: str | None) -> Path:
        calls.append((hub_name, revision))
        return write(tmp_path / "snapshot", {})

    found = resolve(name, download)
    assert calls == [asked]
    assert found.name == asked[0].rpartition("/")[2]
    assert found.folder == tmp_path / "snapshot"


def test_an_unknown_model_says_all_that_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound) as raised:
        resolve("acme/nothing@v1", no_hub)
    said = str(raised.value)
    assert "no model 'acme/nothing@v1'" in said
    assert str(tmp_path / "acme/nothing@v1") in said
    assert "the hub's acme/nothing at v1 (cannot reach the hub for acme/nothing)" in said
    assert "Packaged models: all-MiniLM-L6-v2" in said


def test_a_missing_package_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.weights.PACKAGES", {"all-MiniLM-L6-v2": "no_such_package"})
    with pytest.raises(ModelNotFound, match=r"the Python package no_such_package.*the hub's"):
        resolve("all-MiniLM-L6-v2", no_hub)


def test_what_can_be_no_hub_name_is_not_looked_for_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"looked for a folder [^;]*\. Packaged"):
        resolve(str(tmp_path / "a/b/c"), no_hub)


def test_a_hub_model_that_is_not_there_yet_is_not_found_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def local(hub_name: str, revision: str | None) -> Path:
        return download_from_hub(hub_name, revision, local_files_only=True)

    with pytest.raises(ModelNotFound, match="the hub's acme/never-downloaded"):
        resolve("acme/never-downloaded", local)


# --- what a folder must hold ---------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_each_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    write(tmp_path, {missing: None})
    with pytest.raises(ModelNotFound, match=missing):
        resolve(str(tmp_path))


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json.*model\.safetensors.*vocab\.txt"):
        resolve(str(tmp_path))


def test_a_pickle_is_no_substitute_for_safetensors(tmp_path: Path) -> None:
    write(tmp_path, {"model.safetensors": None, "pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(ModelNotFound, match=r"lacks model\.safetensors"):
        resolve(str(tmp_path))


def test_weights_in_parts_need_every_part(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    whole = {"model.safetensors": None, "model.safetensors.index.json": index}
    write(tmp_path, {**whole, "part-1.safetensors": b"1"})
    with pytest.raises(ModelNotFound, match="all its parts"):
        resolve(str(tmp_path))
    (tmp_path / "part-2.safetensors").write_bytes(b"2")
    names = [path.name for path in resolve(str(tmp_path)).weights]
    assert names == ["part-1.safetensors", "part-2.safetensors"]


@pytest.mark.parametrize("content", [b"{", b"\xff", b""], ids=["cut", "not-utf8", "empty"])
def test_a_broken_config_is_named(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, {"config.json": content})
    with pytest.raises(UnsupportedModel, match=r"cannot read .*config\.json"):
        resolve(str(tmp_path))


def test_a_config_without_a_size_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": {"model_type": "bert"}})
    with pytest.raises(UnsupportedModel, match="no hidden_size"):
        resolve(str(tmp_path))


# --- how its vectors are made --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "pooling"),
    [
        pytest.param({"sentence_encoder.json": {"pooling": "cls"}}, "cls", id="own-file"),
        pytest.param(
            {
                "modules.json": modules("Transformer", "Pooling", "Normalize"),
                "1_Pooling/config.json": CLS,
            },
            "cls",
            id="sentence-transformers",
        ),
        pytest.param(
            {
                "modules.json": modules("Transformer", "Pooling"),
                "1_Pooling/config.json": {"pooling_mode": "cls"},
            },
            "cls",
            id="its-newer-form",
        ),
        pytest.param(
            {
                "sentence_encoder.json": {"pooling": "cls"},
                "modules.json": modules("Transformer", "Pooling"),
                "1_Pooling/config.json": MEAN,
            },
            "cls",
            id="own-file-goes-first",
        ),
        pytest.param({}, "mean", id="nothing-said"),
    ],
)
def test_pooling_is_read(files: dict[str, Any], pooling: str, tmp_path: Path) -> None:
    assert resolve(str(write(tmp_path, files))).pooling == pooling


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({"sentence_encoder.json": {"pooling": "max"}}, "'max'", id="own-file"),
        pytest.param(
            {
                "modules.json": modules("Transformer", "Pooling"),
                "1_Pooling/config.json": {**MEAN, "pooling_mode_cls_token": True},
            },
            r"\['cls', 'mean'\]",
            id="two-at-once",
        ),
        pytest.param(
            {"modules.json": modules("Transformer", "CNN")}, "a CNN layer", id="another-layer"
        ),
        pytest.param(
            {"modules.json": modules("Transformer", "Dense", "Dense"), **dense()},
            "a Dense layer",
            id="two-dense-layers",
        ),
        pytest.param(
            {"modules.json": modules("Transformer", "Dense"), **dense(out_features=0)},
            "has no sizes",
            id="dense-without-sizes",
        ),
        pytest.param(
            {"modules.json": modules("Transformer", "Dense"), **dense(in_features=9)},
            "takes 9 numbers, the model gives 8",
            id="dense-of-another-model",
        ),
        pytest.param(
            {"modules.json": modules("Transformer", "Dense"), **dense(activation_function="os.x")},
            "with 'os.x'",
            id="dense-with-code",
        ),
        pytest.param(
            {"modules.json": modules("Transformer", "Dense"), **dense(activation_function=[])},
            r"with \[\]",
            id="dense-with-no-name",
        ),
        pytest.param(
            {"modules.json": modules("Transformer", "Dense"), **dense(use_residual=True)},
            "is no linear layer",
            id="dense-with-more-in-it",
        ),
        pytest.param(
            {
                "modules.json": modules("Transformer", "Pooling"),
                "1_Pooling/config.json": {**MEAN, "include_prompt": False},
            },
            "leaves its prompt out",
            id="prompt-left-out",
        ),
        pytest.param(
            {"modules.json": [{"type": "models.Pooling", "path": "../elsewhere"}]},
            "not a list of types and paths",
            id="out-of-the-folder",
        ),
        pytest.param({"modules.json": b"{}"}, "expected a JSON array", id="no-list"),
        pytest.param({"config.json": b"[]"}, "expected a JSON object", id="no-object"),
        pytest.param({"config.json": {"hidden_size": -8}}, "no hidden_size", id="no-size"),
        pytest.param(
            {"sentence_encoder.json": {"pooling": "cls", "query_prefix": 7}},
            "a prefix that is no text",
            id="no-text",
        ),
        pytest.param(
            {
                "model.safetensors": None,
                "model.safetensors.index.json": {"weight_map": {"w": "../part"}},
            },
            "not beside it",
            id="weights-elsewhere",
        ),
    ],
)
def test_an_unknown_way_to_make_vectors_is_refused(
    files: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write(tmp_path, files)
    with pytest.raises(UnsupportedModel, match=said):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "files", "prefixes"),
    [
        pytest.param("shop-bert", {}, ("", ""), id="none"),
        pytest.param("multilingual-e5-small", {}, ("query: ", "passage: "), id="e5-by-name"),
        pytest.param("e5-large-instruct", {}, ("", ""), id="e5-instruct"),
        pytest.param(
            "shop-bert",
            {"config_sentence_transformers.json": {"prompts": {"query": "Q ", "document": "D "}}},
            ("Q ", "D "),
            id="prompts",
        ),
        pytest.param(
            "multilingual-e5-small",
            {"sentence_encoder.json": {"pooling": "mean", "query_prefix": "ask: "}},
            ("ask: ", ""),
            id="own-file-goes-first",
        ),
    ],
)
def test_prefixes_are_read(
    name: str, files: dict[str, Any], prefixes: tuple[str, str], tmp_path: Path
) -> None:
    found = resolve(str(write(tmp_path / name, files)))
    assert (found.prefix("query"), found.prefix("passage")) == prefixes


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        pytest.param({"sentence_bert_config.json": {"max_seq_length": 128}}, 128, id="sentence"),
        pytest.param({"tokenizer_config.json": {"model_max_length": 256}}, 256, id="tokenizer"),
        pytest.param(
            {"tokenizer_config.json": {"model_max_length": int(1e30)}}, 512, id="no-real-limit"
        ),
        pytest.param(
            {
                "config.json": {
                    "model_type": "xlm-roberta",
                    "hidden_size": 8,
                    "max_position_embeddings": 514,
                }
            },
            512,
            id="positions-behind-padding",
        ),
        pytest.param({"config.json": {"hidden_size": 8}}, None, id="not-said"),
    ],
)
def test_the_longest_text_is_the_least_limit(
    files: dict[str, Any], limit: int | None, tmp_path: Path
) -> None:
    assert resolve(str(write(tmp_path, files))).max_tokens == limit


def test_a_dense_layer_decides_the_dimension(tmp_path: Path) -> None:
    layers = {"modules.json": modules("Transformer", "Pooling", "Dense", "Normalize"), **dense()}
    found = resolve(str(write(tmp_path, {**layers, "1_Pooling/config.json": MEAN})))
    assert found.dim == 4
    assert found.dense == DenseFile(
        tmp_path / "Dense/model.safetensors", 8, 4, has_bias=False, has_tanh=False
    )


# --- the name of its space -----------------------------------------------------------------------


def test_the_same_files_elsewhere_are_the_same_space(tmp_path: Path) -> None:
    here = read_folder(write(tmp_path / "a", {}), "shop-bert")
    there = read_folder(write(tmp_path / "b", {}), "shop-bert")
    assert encoder_id(here) == encoder_id(there)
    assert encoder_id(here).startswith("shop-bert-")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"model.safetensors": b"trained on"}, id="weights"),
        pytest.param({"tokenizer.json": {"other": 1}}, id="tokenizer"),
        pytest.param({"sentence_encoder.json": {"pooling": "cls"}}, id="pooling"),
        pytest.param({"sentence_encoder.json": {"pooling": "mean", "query_prefix": "q"}}, id="q"),
        pytest.param({"sentence_encoder.json": {"pooling": "mean", "passage_prefix": "q"}}, id="p"),
    ],
)
def test_whatever_decides_a_vector_changes_the_space(
    change: dict[str, Any], tmp_path: Path
) -> None:
    before = read_folder(write(tmp_path / "a", {}), "shop-bert")
    after = read_folder(write(tmp_path / "b", change), "shop-bert")
    assert encoder_id(before) != encoder_id(after)


def test_a_dense_layer_is_a_part_of_the_space(tmp_path: Path) -> None:
    layers = {"modules.json": modules("Transformer", "Dense")}
    tanh = {"activation_function": "torch.nn.modules.activation.Tanh"}
    other = {"Dense/model.safetensors": b"other"}
    ids = {
        encoder_id(read_folder(write(tmp_path / name, {**layers, **files}), "shop-bert"))
        for name, files in {
            "a": dense(),
            "b": {**dense(), **other},
            "c": dense(**tanh),
        }.items()
    }
    assert len(ids) == 3


# --- what its files must be ----------------------------------------------------------------------


def test_the_packaged_model_is_the_one_that_its_pin_says() -> None:
    assert resolve("all-MiniLM-L6-v2", no_hub).pinned == PINS["all-MiniLM-L6-v2"].files
    assert encoder_id(resolve("all-MiniLM-L6-v2", no_hub)).startswith("all-MiniLM-L6-v2-")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param(
            {}, r"model\.safetensors: expected sha256 1a55775f.*, got [0-9a-f]{64}$", id="other"
        ),
        pytest.param(
            {"tokenizer.json": None, "vocab.txt": b"a"}, r"lacks \['tokenizer.json'\]", id="t"
        ),
    ],
)
def test_another_model_of_a_known_name_is_refused(
    files: dict[str, Any], said: str, tmp_path: Path
) -> None:
    found = resolve("multilingual-e5-small", lambda *_: write(tmp_path, files))
    with pytest.raises(UnexpectedFiles, match=said):
        encoder_id(found)


def test_a_revision_or_a_folder_of_ones_own_is_not_held_against_the_pin(tmp_path: Path) -> None:
    folder = write(tmp_path / "multilingual-e5-small", {})
    assert encoder_id(resolve(str(folder)))
    assert encoder_id(resolve("intfloat/multilingual-e5-small@main", lambda *_: folder))
    names = ["multilingual-e5-small", "intfloat/multilingual-e5-small", str(folder), "acme/bert"]
    assert [is_pinned(name) for name in names] == [True, True, False, False]


def test_a_digest_that_was_set_must_be_that_of_all_that_decides_a_vector(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "shop-bert", {}))
    with pytest.raises(
        UnexpectedFiles, match=r"setting encoder_sha256: expected sha256 0+, got"
    ) as e:
        encoder_id(resolve(folder, sha256="0" * 64))
    found = str(e.value).rpartition(" ")[2]
    assert encoder_id(resolve(folder, sha256=found)) == f"shop-bert-{found[:12]}"
    write(tmp_path / "shop-bert", {"tokenizer.json": {"other": 1}})
    with pytest.raises(UnexpectedFiles, match=found):
        encoder_id(resolve(folder, sha256=found))
