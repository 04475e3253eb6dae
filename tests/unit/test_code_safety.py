"""What the code of the program must not do, read from its syntax: run what it was sent, as data."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("stream", "models", "deploy")

#: Modules whose reading of bytes can run code of whoever wrote them.
UNSAFE_MODULES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("pickletools", "copyreg", "jsonpickle", "telnetlib", "xmlrpc"),
}
#: Calls by the last parts of their names; of some only with an argument that makes them unsafe.
UNSAFE_CALLS = {
    *("eval", "exec", "torch.load", "torch.save", "torch.jit.load", "torch.hub.load"),
    *("pd.read_pickle", "pandas.read_pickle", "to_pickle", "faiss.read_index"),
    *("faiss.deserialize_index", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"),
    *("np.fromregex", "numpy.save", "np.save", "ssl._create_unverified_context"),
}
UNSAFE_ARGUMENTS = {
    "allow_pickle": True,
    "shell": True,
    "trust_remote_code": True,
    "weights_only": False,
    "use_safetensors": False,
    "verify": False,
}


def unsafe_in(source: str, name: str = "?") -> Iterator[str]:
    """Yield file, line and name of all that is unsafe in a module."""
    for node in ast.walk(ast.parse(source)):
        for found in _unsafe_names(node):
            yield f"{name}:{node.lineno}: {found}"  # type: ignore[attr-defined]


def _unsafe_names(node: ast.AST) -> Iterator[str]:
    modules: list[str] = []
    match node:
        case ast.Import():
            modules = [alias.name for alias in node.names]
        case ast.ImportFrom():
            modules = [node.module or ""]
            yield from (
                f"{node.module}.{alias.name}"
                for alias in node.names
                if f"{node.module}.{alias.name}" in UNSAFE_CALLS
            )
        case ast.Call():
            called = ast.unparse(node.func)
            parts = called.split(".")
            if {called, ".".join(parts[-2:])} & UNSAFE_CALLS or parts[-1] in {
                c for c in UNSAFE_CALLS if c.startswith("to_")
            }:
                yield called
            if called in ("import_module", "importlib.import_module", "__import__") and node.args:
                modules = [ast.unparse(node.args[0]).strip("'\"")]
            yield from (
                f"{called}({keyword.arg}={UNSAFE_ARGUMENTS[keyword.arg]})"
                for keyword in node.keywords
                if keyword.arg in UNSAFE_ARGUMENTS
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value is UNSAFE_ARGUMENTS[keyword.arg]
            )
    yield from (module for module in modules if module.split(".")[0] in UNSAFE_MODULES)


def test_nothing_that_is_read_can_run_code():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 150
    found = [
        line
        for path in files
        for line in unsafe_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from joblib import load",
        "from torch import load\nfrom torch.hub import load",
        "import importlib\nimportlib.import_module('dill')",
        "torch.load(path)",
        "t.jit.load(path)\ntorch.jit.load(path)",
        "np.load(path, allow_pickle=True)",
        "frame.to_pickle(path)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
        "faiss.read_index(path)",
        "yaml.load(text)",
        "httpx.Client(verify=False)",
    ],
)
def test_the_check_sees(source):
    assert list(unsafe_in(source))


@pytest.mark.parametrize(
    "source",
    [
        "np.load(path, allow_pickle=False)",
        "model.eval()",
        "json.load(file)",
        "safetensors.numpy.load(raw)",
        "subprocess.run(command)",
        "yaml.safe_load(text)",
    ],
)
def test_the_check_lets_pass(source):
    assert list(unsafe_in(source)) == []


# --- secrets in the repository -------------------------------------------------------------------

#: Of detect-secrets: kinds of secret known by their form. By entropy it also finds digests.
PLUGINS = [
    *("ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector"),
    *("CloudantDetector", "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector"),
    *("IbmCloudIamDetector", "JwtTokenDetector", "KeywordDetector", "MailchimpDetector"),
    *("NpmDetector", "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector"),
    *("SendGridDetector", "SlackDetector", "SquareOAuthDetector", "StripeDetector"),
    *("TelegramBotTokenDetector", "TwilioKeyDetector"),
]


def secrets_in(path: Path) -> list[str]:
    """Return kind and line of what looks like a secret; ``pragma: allowlist secret`` says none."""
    from detect_secrets import SecretsCollection
    from detect_secrets.settings import transient_settings

    found = SecretsCollection()
    with transient_settings({"plugins_used": [{"name": name} for name in PLUGINS]}):
        found.scan_file(str(path))
    return [f"{path}:{secret.line_number}: {secret.type}" for _, secret in found]


@pytest.mark.slow
def test_the_repository_holds_no_secret(monkeypatch):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git, and the repository")
    monkeypatch.chdir(ROOT)
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True)
    # The fuzzer's finds are bytes made at random.
    paths = [
        Path(name)
        for name in listed.stdout.split("\0")
        if name and not name.startswith("tests/fuzz/finds") and Path(name).is_file()
    ]
    assert len(paths) > 200
    assert [line for path in paths for line in secrets_in(path)] == []


@pytest.mark.parametrize(
    "text",
    [
        "aws = 'AKIA" + "IOSFODNN7EXAMPLF'",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "url = 'https://shop:" + "hunter2x@broker.example'",
        "sasl_pass" + "word = 'n0t-for-you-1'",
    ],
)
def test_the_scan_sees(tmp_path, text):
    (tmp_path / "settings.py").write_text(text + "\n")
    assert secrets_in(tmp_path / "settings.py")
