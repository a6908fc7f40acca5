"""The benchmark as SVG: a bar for each contender, and the worker's memory over the night."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH = 640
ROW = 40
BAR = 500
PLOT = 160


def draw(result: dict[str, Any]) -> str:
    """Bars of the ratios to the paper's pipeline; below, memory over time where it was measured."""
    ran = {
        name: (one["ratio_to_paper"], one["cells_per_s"])
        for name, one in result["contenders"].items()
        if "ratio_to_paper" in one
    }
    samples = result.get("pipeline", {}).get("worker_memory_mb", {}).get("samples", [])
    height = ROW * len(ran) + (PLOT + ROW if samples else 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13" fill="#3a6ea5">'
        f"{_bars(ran)}{_line(samples, ROW * len(ran))}</svg>\n"
    )


def _bars(ran: dict[str, tuple[float, float]]) -> str:
    longest = max((ratio for ratio, _ in ran.values()), default=1)
    return "".join(
        f'<text x="0" y="{ROW * row + 14}">{escape(name)}</text>'
        f'<rect x="0" y="{ROW * row + 19}" width="{BAR * ratio / longest:.0f}" height="12"/>'
        f'<text x="{BAR * ratio / longest + 6:.0f}" y="{ROW * row + 30}">'
        f"{ratio} x, {cells:.0f} cells/s</text>"
        for row, (name, (ratio, cells)) in enumerate(ran.items())
    )


def _line(samples: Sequence[float], top: float) -> str:
    if not samples:
        return ""
    step, highest = WIDTH / len(samples), max(samples)
    points = " ".join(
        f"{step * place:.0f},{top + ROW + PLOT * (1 - held / highest):.0f}"
        for place, held in enumerate(samples)
    )
    return (
        f'<text x="0" y="{top + 24}">memory of the worker over the night, '
        f"0 to {highest:.0f} MB</text>"
        f'<polyline points="{points}" fill="none" stroke="#3a6ea5" stroke-width="2"/>'
    )
