"""One input under a target, and what is a find: an error that nobody documents, time, memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from traceback import FrameSummary, extract_tb

from fuzz.mutations import mutated
from fuzz.targets import Target

FINDS = Path(__file__).parent / "finds"
#: What one input of at most 64 KiB may take.
MAX_S = 5.0
MAX_GROWTH_BYTES = 200 << 20


@dataclass(frozen=True)
class Find:
    """What a target did that it must not; ``place`` tells one cause from another."""

    place: str
    story: str


def tried(target: Target, raw: bytes) -> Find | None:
    """Return what is wrong under this input, None when nothing is."""
    peak, started = _peak_bytes(), time.monotonic()
    try:
        target.check(raw)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of Rust code is no Exception
        return _find(error)
    took_s, grown = time.monotonic() - started, _peak_bytes() - peak
    if took_s > MAX_S:
        return Find("time", f"{len(raw)} bytes took {took_s:.1f} s")
    if grown > MAX_GROWTH_BYTES:
        return Find("memory", f"{len(raw)} bytes took {grown >> 20} MiB")
    return None


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _find(error: BaseException) -> Find:
    frames = extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(frame)] or frames
    place = f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
    trace = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
    return Find(place, f"{type(error).__name__}: {str(error)[:300]} ({trace})")


def _is_ours(frame: FrameSummary) -> bool:
    return {"stream", "models", "fuzz"} & set(Path(frame.filename).parts[-4:]) != set()


def known(target: Target) -> list[Path]:
    """Return the files of earlier finds."""
    return sorted((FINDS / target.name).glob("*"))


def quick_inputs(target: Target) -> Iterable[bytes]:
    """Yield the seeds, and as many inputs near them as ``n_quick``; always the same."""
    seeds = target.seeds()
    yield from seeds
    random = Random(target.name)
    for _ in range(target.n_quick):
        yield mutated(random.choice(seeds), target.forms, random)
