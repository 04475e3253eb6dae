"""One target under atheris, in a process of its own: libFuzzer takes the process over.

    python -m fuzz.child TARGET FINDS CORPUS [libFuzzer's options]

Finds do not end the run: each cause is written to FINDS once, and told on standard error.
"""

from __future__ import annotations

import hashlib
import logging
import resource
import sys
from functools import partial
from pathlib import Path
from random import Random

import atheris

#: What is watched for new paths.
OURS = ["stream", "models"]

with atheris.instrument_imports(include=OURS):
    from fuzz.mutations import mutated
    from fuzz.targets import BROKEN, TARGETS, Target
    from fuzz.trying import tried

#: What is asked for beyond this is not given: one input must not end the run, or the machine.
MAX_DATA_BYTES = 3 << 30


class Watch:
    """Tries inputs, and writes down the first of each cause."""

    def __init__(self, target: Target, finds: Path) -> None:
        self._target = target
        self._finds = finds
        self._seen: set[str] = set()

    def __call__(self, raw: bytes) -> None:
        find = tried(self._target, raw)
        if find is None or find.place in self._seen:
            return
        self._seen.add(find.place)
        self._finds.mkdir(parents=True, exist_ok=True)
        path = self._finds / hashlib.sha256(raw).hexdigest()[:12]
        path.write_bytes(raw)
        sys.stderr.write(f"FIND {path} {find.story}\n")
        sys.stderr.flush()


def mutator(target: Target, raw: bytes, max_bytes: int, seed: int) -> bytes:
    """Change an input by its form or, as often, as libFuzzer does."""
    if seed % 2:
        return atheris.Mutate(raw, max_bytes)
    return mutated(raw, target.forms, Random(seed))[:max_bytes]


def main() -> None:
    name, finds, corpus, *options = sys.argv[1:]
    target = {**TARGETS, BROKEN.name: BROKEN}[name]
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_DATA_BYTES, MAX_DATA_BYTES))
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=OURS):
        for number, seed in enumerate(target.seeds()):
            (folder / f"seed-{number}").write_bytes(seed)
            # What is loaded at the first use takes its time and its memory now.
            tried(target, seed)
    watch = Watch(target, Path(finds))
    atheris.Setup([sys.argv[0], *options, corpus], watch, custom_mutator=partial(mutator, target))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
