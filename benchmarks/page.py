"""Results as the Markdown tables of docs/performance.md, ready to paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table; its columns are all their keys, in the order they come."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = [
        " | ".join(column.replace("_", " ") for column in columns),
        "|".join("---" for _ in columns),
    ]
    body = [" | ".join(_shown(row.get(column)) for column in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in (*head, *body))


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{_shown(one)} in {name}" for name, one in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def named(rows: Mapping[str, Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Rows that are keyed by their name, with it in front."""
    return [{name: key, **row} for key, row in rows.items()]


def benchmark(result: Mapping[str, Any]) -> str:
    """Everything that `smearwatch benchmark` measured."""
    parts = [table(named(result["contenders"], "contender")), table([result["machine"]])]
    if "accuracy" in result:
        modes = {name: one | _interval(one) for name, one in result["accuracy"].items()}
        parts.append(table(named(modes, "mode")))
    if "pipeline" in result:
        memory = result["pipeline"].get("worker_memory_mb", {})
        flat = {f"worker_mb_{name}": memory.get(name) for name in ("early", "late", "peak")}
        whole = {
            name: one for name, one in result["pipeline"].items() if name != "worker_memory_mb"
        }
        parts.append(table([whole | flat]))
    if "workers" in result:
        parts.append(table(result["workers"]))
    return "\n\n".join(parts) + "\n"


def _interval(mode: Mapping[str, Any]) -> dict[str, str]:
    value, low, high = mode["f1_difference"]
    return {"f1_difference": f"{value} ({low} to {high})"}


def database(result: Mapping[str, Any]) -> str:
    """Everything that `python -m benchmarks.database` measured."""
    milliseconds = [{"asked": name, "ms": ms} for name, ms in result["program"].items()]
    parts = [
        table([result["filling"] | result["size"] | result.get("purging", {})]),
        table(named(result["documented"], "question of docs/sql.md")),
        table(named(result["views"], "view")),
        table(milliseconds),
    ]
    return "\n\n".join(parts) + "\n"
