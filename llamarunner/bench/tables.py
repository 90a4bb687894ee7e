"""A report, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

# column → the keys of a scenario's row, how it is written
COLUMNS = {
    "requests/s": ("requests_per_second", ".0f"),
    "tokens/s": ("tokens_per_second", ".0f"),
    "first byte p50": ("first_byte_p50_ms", ".2f"),
    "p99": ("first_byte_p99_ms", ".2f"),
    "whole p50": ("whole_p50_ms", ".2f"),
    "p99 ": ("whole_p99_ms", ".2f"),
}


def proxy(report: dict[str, Any]) -> Iterator[Table]:
    """Both arms of every scenario and what the door adds, then starts and memory."""
    for scenario in report["scenarios"]:
        table = Table(title=f"{scenario['scenario']} ({report['model']}; times in ms)", title_justify="left")
        table.add_column("")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for arm in ("straight", "door"):
            table.add_row(arm, *(format(scenario[arm][key], style) for key, style in COLUMNS.values()))
        table.add_row("door adds", *(_added(scenario, key) for key, _ in COLUMNS.values()), style="bold")
        yield table
    yield _summary(report)


def _added(scenario: dict[str, Any], key: str) -> str:
    """A ratio for rates, a difference for times."""
    return f"×{scenario[f'ratio_{key}']:.2f}" if f"ratio_{key}" in scenario else f"{scenario[f'added_{key}']:+.2f}"


def _summary(report: dict[str, Any]) -> Table:
    starts, memory = report["start_to_first_token_ms"], report["server_memory_mb"]
    table = Table(title="The server", title_justify="left", show_header=False)
    figures = f"{starts['straight']:.0f} ms by hand, {starts['door']:.0f} ms through a door"
    table.add_row("from nothing to the first token", f"{figures} ({starts['added']:+.0f} ms)")
    table.add_row("memory, idle and after the load", f"{memory['idle']:.0f} MB, {memory['after']:.0f} MB")
    for scenario in report["scenarios"]:
        cpu = scenario["server_cpu_ms_per_request"]
        table.add_row(f"its CPU for each request, {scenario['scenario']}", f"{cpu:.2f} ms")
    return table


def audio(report: dict[str, Any]) -> Iterator[Table]:
    """All arms, and what the door adds to the one that it is made of."""
    seconds = f"{report['duration_seconds']:.0f} s of speech"
    table = Table(title=f"{seconds} ({report['model']})", title_justify="left")
    table.add_column("")
    for column in ("seconds p50", "CPU seconds", "real-time factor", "peak memory", "load"):
        table.add_column(column, justify="right")
    for name, arm in report["arms"].items():
        figures = (f"{arm['seconds_p50']:.2f}", f"{arm['cpu_seconds_p50']:.2f}", f"{arm['real_time_factor']:.4f}")
        table.add_row(name, *figures, f"{arm['peak_memory_mb']:.0f} MB", f"{arm['load_seconds']:.2f} s")
    for name, ratio in (
        ("batched / sequential", report["batched_over_sequential"]),
        (f"door / {report['same_as_door']}", report["door_over_same"]),
    ):
        table.add_row(name, f"×{ratio['seconds']:.3f}", f"×{ratio['cpu_seconds']:.3f}", style="bold")
    yield table
