#!/usr/bin/env python3
"""Make an image's file system by the Dockerfile's own steps, in order, without a container engine.

    debootstrap --variant=minbase --include=python3-venv,python-is-python3 bookworm BASE
    image.py --base BASE --out FOLDER --target cpu [--bind PATH ...] [--check]

BASE stands for the base image: the same Debian and Python, and no compiler. Every stage that the
target needs gets a copy of it, in which RUN is run by chroot, as the user that the Dockerfile says.
``--bind`` shows a path of this machine in there: what pip and the resolver need to reach the
packages. ``--check`` then runs the program as the image would be run: as that user, with a
read-only root. Needs root and Linux; nothing is built but in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCKERFILE = HERE / "Dockerfile"
CONTEXT = HERE.parent
#: Steps that only say something of the image.
TOLD = {"EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD", "VOLUME", "HEALTHCHECK"}
#: What the image is run with, beside its volume.
WRITABLE = ("/tmp", "/var/lib/prefstream")
COMPILERS = ("cc", "gcc", "g++", "clang", "ld", "make", "rustc", "cargo")

#: Loads a model and encodes; says what is wrong without a broker; then, beside a broker, starts all
#: processes, is ready by its own health check, and stops when it is told.
CHECK = """
import os, subprocess, sys, time
from models.bert_encoder import BertEncoder
from models.weights import resolve

vectors = BertEncoder(resolve("all-MiniLM-L6-v2"), device="cpu").encode(["a shoe"], "query")
assert vectors.shape == (1, 384)
port = "19092"
environment = {**os.environ, "PREFSTREAM_BROKER": "127.0.0.1:" + port}

def prefstream(*words):
    return subprocess.run(["prefstream", *words], env=environment).returncode

def healthy():
    return subprocess.run([sys.executable, "/opt/prefstream-healthcheck.py"]).returncode == 0

alone = prefstream("topics", "check")
data = "/tmp/broker"
broker = subprocess.Popen(["prefstream", "broker", "--port", port, "--data-dir", data])
until = time.monotonic() + 60
while prefstream("topics", "create") and time.monotonic() < until:
    time.sleep(1)
checked = prefstream("topics", "check")
worker = subprocess.Popen(["prefstream", "worker"], env=environment)
began, until = healthy(), time.monotonic() + 300
while not (ready := healthy()) and worker.poll() is None and time.monotonic() < until:
    time.sleep(1)
worker.terminate()
code = worker.wait(60)
broker.terminate()
found = dict(alone=alone, checked=checked, began=began, ready=ready, exit=code, uid=os.getuid())
print(found)
sys.exit(found != dict(alone=1, checked=0, began=False, ready=True, exit=0, uid=10001))
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, and the words behind it."""

    name: str
    text: str


@dataclass(slots=True)
class Stage:
    """What a FROM begins: another stage or a base image, and the steps that follow."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """What the steps so far have set."""

    env: dict[str, str]
    workdir: str = "/"
    user: str = "0"


def parse(text: str) -> list[Stage]:
    """Return the stages in order; raises ValueError for a step that is not known here."""
    stages: list[Stage] = []
    for step in _steps(text):
        if step.name == "FROM":
            base, _, name = step.text.partition(" AS ")
            stages.append(Stage(name, base))
        elif stages:
            stages[-1].steps.append(step)
        elif step.name != "ARG":  # of the base image's name
            raise ValueError(f"{step.name} before the first FROM")
    return stages


def _steps(text: str) -> Iterator[Step]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            if name not in {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", *TOLD}:
                raise ValueError(f"a step that this script does not know: {name}")
            yield Step(name, rest.strip())


def chain(stages: list[Stage], target: str) -> list[Stage]:
    """Return the stages that a target is made of, the one from the base image first."""
    by_name = {stage.name: stage for stage in stages}
    found = [by_name[target]]
    while found[0].base in by_name:
        found.insert(0, by_name[found[0].base])
    return found


class Maker:
    """Makes targets, each in a folder of its own."""

    def __init__(self, stages: list[Stage], base: Path, out: Path, binds: list[str]) -> None:
        self._stages, self._base, self._out, self._binds = stages, base, out, binds

    def make(self, target: str) -> tuple[Path, State]:
        """Run the target's steps; return its root and what they have set."""
        root = self._out / target
        subprocess.run(["cp", "-a", "--reflink=auto", str(self._base), str(root)], check=True)
        state = State({"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"})
        for stage in chain(self._stages, target):
            for step in stage.steps:
                if step.name not in TOLD:
                    print(f"{target}: {step.name} {step.text}", flush=True)
                    self._do(step, root, state)
        return root, state

    def _do(self, step: Step, root: Path, state: State) -> None:
        text = step.text
        if step.name == "RUN":
            self.run(root, state, ["sh", "-c", text])
        elif step.name == "COPY":
            self._copy(text.split(), root, state)
        elif step.name == "WORKDIR":
            state.workdir = text
            _inside(root, text, state).mkdir(parents=True, exist_ok=True)
        elif step.name == "USER":
            state.user = text
        else:  # ENV and ARG; what the call sets stands in for --build-arg
            for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', text):
                value = re.sub(r"\$(\w+)", lambda m: state.env.get(m[1], ""), value.strip('"'))
                state.env[name] = os.environ.get(name, value) if step.name == "ARG" else value

    def _copy(self, words: list[str], root: Path, state: State) -> None:
        source_root, copy = CONTEXT, shutil.copy2
        if words[0].startswith("--from="):
            source_root, _ = self.make(words.pop(0).removeprefix("--from="))
            copy = os.link  # several gigabytes once are enough: the build stage is done with
        *sources, to = words
        for source in sources:
            there = source_root / source.lstrip("/")
            target = _inside(root, to, state)
            if there.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(
                    there,
                    target,
                    symlinks=True,
                    dirs_exist_ok=True,
                    ignore=ignored,
                    copy_function=copy,
                )
            else:
                target = target / there.name if to.endswith("/") else target
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(there, target)

    def run(self, root: Path, state: State, command: list[str], read_only: bool = False) -> None:
        """Run a command in a root, in namespaces that end with it; raise CalledProcessError."""
        script = ["set -e", f"mount --rbind {root} {root}", f"cd {root}"]
        script += [f"mkdir -p .{path}" for path in WRITABLE]
        for path in (*self._binds, "/dev", "/proc"):
            script += [
                f"if [ -d {path} ]; then mkdir -p .{path}; else mkdir -p .{Path(path).parent}"
            ]
            script[-1] += f"; : > .{path}; fi"
            script += [f"mount --rbind {path} .{path}"]
        if read_only:
            script += [f"mount -t tmpfs -o mode=1777 none .{path}" for path in WRITABLE]
            script += ["mount -o remount,bind,ro ."]
        script.append('exec chroot --userspec="$RUN_AS" . /usr/bin/env -i "$@"')
        wrapped = [
            "sh",
            "-c",
            "\n".join(script),
            "run",
            *(f"{k}={v}" for k, v in state.env.items()),
        ]
        wrapped += ["sh", "-c", 'cd "$1"; shift; exec "$@"', "in", state.workdir, *command]
        user = state.user if ":" in state.user else f"{state.user}:{state.user}"
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", *wrapped],
            env={**os.environ, "RUN_AS": user},
            check=True,
        )


def _inside(root: Path, path: str, state: State) -> Path:
    return root / os.path.join(state.workdir, path).lstrip("/")


def check(maker: Maker, root: Path, state: State) -> None:
    """Run the program as the image would be run; raise CalledProcessError or ValueError."""
    found = [
        name
        for name in COMPILERS
        for bin_ in ("usr/bin", "opt/prefstream/bin")
        if (root / bin_ / name).exists()
    ]
    if found or state.user in {"0", "root"}:
        raise ValueError(f"expected no compiler and no root, got {found} and user {state.user}")
    for words in ("--version", "--help", "topics list"):
        command = ["prefstream", *words.split()]
        maker.run(root, state, command, read_only=True)
    maker.run(root, state, ["python", "-c", CHECK], read_only=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--bind", action="append", default=[])
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    stages = parse(DOCKERFILE.read_text())
    maker = Maker(stages, given.base.resolve(), given.out.resolve(), given.bind)
    root, state = maker.make(given.target)
    if given.check:
        check(maker, root, state)
    entry = [
        json.loads(s.text)
        for g in chain(stages, given.target)
        for s in g.steps
        if s.name in {"ENTRYPOINT", "CMD"}
    ]
    words = [word for part in entry for word in part]
    print(f"{given.target}: {root}, runs {' '.join(words)} as {state.user}")


if __name__ == "__main__":
    sys.exit(main())
