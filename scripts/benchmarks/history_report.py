"""What was measured of long logs, as lines on the screen and in a part of docs/performance.md of its own."""

from collections.abc import Sequence

from scripts.benchmarks.databases import Kind
from scripts.benchmarks.history import History
from scripts.benchmarks.report import machine, put, verdict

BEGIN = "<!-- measured by ./scripts/bench --only history: begin -->"
END = "<!-- measured by ./scripts/bench --only history: end -->"

SHARE, POSTGRESQL_RATE, MOST_MB = 0.6, 80_000, 250
VERIFY_RATE, EXPORT_RATE = 250_000, 80_000
P99_TIMES, AUDIT_MS = 3, 20

HEAD = (
    "\n| events | rebuild, events/s | by hand | share | memory, MB | checks failed beside it | p99 beside it, × usual "
    "| verify, events/s | export, events/s | audit by user, p95 ms | by day |\n|" + "---|" * 11
)


def row(h: History) -> str:
    if h.share is None:
        rebuilt = f"{verdict(h.rate, h.rate >= POSTGRESQL_RATE, ',.0f')} | – | –"
    else:
        rebuilt = f"{h.rate:,.0f} | {max(h.by_hand):,.0f} | {verdict(h.share, h.share >= SHARE)}"
    return (
        f"| {h.events:,} | {rebuilt} | {verdict(h.memory_mb, h.memory_mb <= MOST_MB, '.0f')} "
        f"| {verdict(h.failed, h.failed == 0, '.0f')} | {verdict(h.p99_times, h.p99_times <= P99_TIMES, '.1f')} "
        f"| {verdict(h.verify_rate, h.verify_rate >= VERIFY_RATE, ',.0f')} "
        f"| {verdict(h.export_rate, h.export_rate >= EXPORT_RATE, ',.0f')} "
        f"| {verdict(h.by_user_ms, h.by_user_ms <= AUDIT_MS, '.1f')} "
        f"| {verdict(h.by_day_ms, h.by_day_ms <= AUDIT_MS, '.1f')} |"
    )


def write(measured: Sequence[History], wrk: str, rounds: int, seconds: int) -> None:
    parts = [machine(wrk, rounds, seconds)]
    for kind in Kind:
        rows = [row(history) for history in measured if history.kind is kind]
        if rows:
            parts += [f"\n### A long log on {kind.label}", HEAD, *rows]
    put(BEGIN, END, "\n".join(parts))
