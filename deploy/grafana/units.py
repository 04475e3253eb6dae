"""A number in the unit of a panel, as Grafana would write it."""

from __future__ import annotations

import math

_SI = ((1e9, " G"), (1e6, " M"), (1e3, " k"))
_BYTES = ((2**40, " TiB"), (2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"))
_TIMES = ((86_400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs"))


def told(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a number with its unit; ``decimals`` None: three digits or so."""
    if not math.isfinite(value):
        return "-"
    if unit.startswith("suffix:"):
        return _number(value, decimals) + unit.removeprefix("suffix:")
    match unit:
        case "percentunit":
            return _number(100 * value, decimals) + " %"
        case "s":
            return _scaled(value, _TIMES, " s", decimals)
        case "bytes":
            return _scaled(value, _BYTES, " B", decimals)
        case "Bps":
            return _scaled(value, _BYTES, " B", decimals) + "/s"
        case "reqps":
            return _scaled(value, _SI, "", decimals) + " /s"
        case _:
            return _scaled(value, _SI, "", decimals)


def _scaled(
    value: float, scales: tuple[tuple[float, str], ...], plain: str, decimals: int | None
) -> str:
    for size, name in scales:
        if abs(value) >= size:
            return _number(value / size, decimals) + name
    return _number(value, decimals) + plain


def _number(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == round(value) and abs(value) < 1e4:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
