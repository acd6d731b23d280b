"""The table: what was measured, beside its goal and beside what else could do the same."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line: a lap and percentile of a series, with the goal on an NVIDIA H200 in nanoseconds, if there is one."""

    what: str
    series: str
    lap: str
    percentile: str = "p50_ns"
    goal: float = None
    beside: tuple = ()


@dataclass(frozen=True)
class Beside:
    """Something to compare with. `rate` turns time into a rate: `(what stands in the series, unit, divisor)`."""

    what: str
    series: str
    lap: str
    rate: tuple = None


TORCH_QUERY = "torch, query sent and hits fetched"
ROWS = (
    Row("nop, publish to completion seen", "ring/persistent/nop", "seen", goal=2_500, beside=(
        Beside("launch mode", "ring/launch/nop", "seen"),
        Beside("graph mode", "ring/graph/nop", "seen"),
        Beside("torch launch + synchronise", "torch/launch", "seen"),
        Beside("torch graph replay + synchronise", "torch/graph", "seen"),
    )),
    Row("nop, the same, p99", "ring/persistent/nop", "seen", "p99_ns", 5_000),
    Row("nop through the engine", "engine/persistent/nop", "exact", beside=(
        Beside("CPU backend", "engine/cpu/nop", "exact"),
    )),
    Row("1 query, candidates seen", "ring/persistent/query-1", "seen", goal=8_000, beside=(
        Beside("launch mode", "ring/launch/query-1", "seen"),
        Beside("graph mode", "ring/graph/query-1", "seen"),
        Beside("device", "ring/persistent/query-1", "device"),
    )),
    Row("1 query, rescored", "ring/persistent/query-1", "exact", goal=12_000, beside=(
        Beside(TORCH_QUERY, "torch/query-1", "seen"),
        Beside("CPU backend", "engine/cpu/query-1", "exact"),
        Beside("engine", "engine/persistent/query-1", "exact"),
    )),
    Row("1 query, rescored, p99", "ring/persistent/query-1", "exact", "p99_ns"),
    Row("64 queries, candidates seen", "ring/persistent/query-64", "seen", goal=15_000, beside=(
        Beside("launch mode", "ring/launch/query-64", "seen"),
        Beside("device", "ring/persistent/query-64", "device"),
        Beside(TORCH_QUERY, "torch/query-64", "seen"),
        Beside("CPU backend", "engine/cpu/query-64", "exact"),
    )),
    Row("5,562 queries, device", "ring/persistent/query-all", "device", goal=500_000, beside=(
        Beside("torch int8 matmul", "torch/matmul-int8", "seen", ("operations", "TOP/s", 1e3)),
        Beside("torch bf16 matmul", "torch/matmul-bf16", "seen", ("operations", "TFLOP/s", 1e3)),
        Beside("launch mode, device", "ring/launch/query-all", "device"),
    )),
    Row("5,562 queries, exact on the host", "engine/persistent/query-all", "exact", goal=3_000_000, beside=(
        Beside("candidates seen", "ring/persistent/query-all", "seen"),
        Beside(TORCH_QUERY, "torch/query-all", "seen"),
        Beside("CPU backend", "engine/cpu/query-all", "exact"),
    )),
    Row("1 query on 1,000,000 rows, candidates seen", "ring/persistent/query-1m", "seen", goal=150_000, beside=(
        Beside("device", "ring/persistent/query-1m", "device"),
        Beside("torch copy on the device", "torch/copy", "seen", ("bytes", "GB/s", 1.0)),
        Beside(TORCH_QUERY, "torch/query-1m", "seen"),
        Beside("CPU backend", "engine/cpu/query-1m", "exact"),
    )),
    Row("1 query on 1,000,000 rows, rescored", "ring/persistent/query-1m", "exact"),
    Row("110,000 memories from pinned memory, masks seen", "ring/persistent/encode", "seen", goal=3_000_000, beside=(
        Beside("torch copy of 39.6 MB to the device", "torch/upload", "seen"),
        Beside("launch mode", "ring/launch/encode", "seen"),
    )),
    Row("110,000 memories through the engine", "engine/persistent/encode", "exact", beside=(
        Beside("CPU backend", "engine/cpu/encode", "exact"),
    )),
    Row("nop by wgpu, publish to completion seen", "ring/wgpu/nop", "seen", beside=(
        Beside("CUDA, launch mode", "ring/launch/nop", "seen"),
    )),
    Row("1 query by wgpu, rescored", "ring/wgpu/query-1", "exact", goal=150_000, beside=(
        Beside("CUDA, launch mode", "ring/launch/query-1", "exact"),
        Beside("candidates seen", "ring/wgpu/query-1", "seen"),
        Beside("engine", "engine/wgpu/query-1", "exact"),
        Beside("CPU backend", "engine/cpu/query-1", "exact"),
    )),
    Row("1 query by wgpu, rescored, p99", "ring/wgpu/query-1", "exact", "p99_ns"),
    Row("64 queries by wgpu, rescored", "ring/wgpu/query-64", "exact", beside=(
        Beside("CUDA, launch mode", "ring/launch/query-64", "exact"),
        Beside("CPU backend", "engine/cpu/query-64", "exact"),
    )),
    Row("5,562 queries by wgpu, exact on the host", "engine/wgpu/query-all", "exact", goal=20_000_000, beside=(
        Beside("CUDA, launch mode", "ring/launch/query-all", "exact"),
        Beside("candidates seen", "ring/wgpu/query-all", "seen"),
        Beside("CPU backend", "engine/cpu/query-all", "exact"),
    )),
    Row("1 query by wgpu on 1,000,000 rows, rescored", "ring/wgpu/query-1m", "exact", beside=(
        Beside("CUDA, launch mode", "ring/launch/query-1m", "exact"),
        Beside("CPU backend", "engine/cpu/query-1m", "exact"),
    )),
    Row("110,000 memories by wgpu, masks seen", "ring/wgpu/encode", "seen", goal=15_000_000, beside=(
        Beside("CUDA, launch mode", "ring/launch/encode", "seen"),
        Beside("engine", "engine/wgpu/encode", "exact"),
        Beside("CPU backend", "engine/cpu/encode", "exact"),
    )),
)

RATES = (
    ("nops a second, 32 in the ring", "persistent", "nop-rate"),
    ("single queries a second, 32 in the ring", "persistent", "query-rate"),
    ("single queries a second by wgpu, 32 in the ring", "wgpu", "query-rate"),
)

# What is said wherever a figure of a rehearsal might be taken for one of a GPU.
REHEARSAL = "REHEARSAL on the CPU's twin of the kernel, tiny sizes: these numbers measure nothing"


def time_text(nanos):
    """`2.41 µs`: three digits that count."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanos >= size:
            return f"{three(nanos / size)} {unit}"
    return f"{nanos:.0f} ns"


def three(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def lines(series, rehearsal, no_wgpu=None):
    """The table's rows as lists of text: what, measured, spread over rounds, goal, beside. What was not measured says so; `no_wgpu` says why."""
    found = []
    missing = lambda name: no_wgpu if no_wgpu and "/wgpu/" in name else "not measured"  # noqa: E731
    for row in ROWS:
        lap = series.get(row.series, {}).get(row.lap)
        beside = "; ".join(text for text in (beside_text(one, series) for one in row.beside) if text)
        if lap is None:
            found.append([row.what, missing(row.series), "", goal_text(row.goal, None, rehearsal), beside])
            continue
        value = lap[row.percentile]
        spread = " to ".join(map(time_text, lap["spread_ns"])) if row.percentile == "p50_ns" else ""
        found.append([row.what, time_text(value), spread, goal_text(row.goal, value, rehearsal), beside])
    for what, mode, case in RATES:
        rate, launch = (series.get(f"ring/{one}/{case}", {}).get("per_second") for one in (mode, "launch"))
        if rate is None:
            found.append([what, missing(f"ring/{mode}/{case}"), "", "", ""])
            continue
        spread = " to ".join(f"{value:,.0f}" for value in rate["spread"])
        beside = f"launch mode {launch['median']:,.0f}" if launch else ""
        found.append([what, f"{rate['median']:,.0f}", spread, "", beside])
    return found


def goal_text(goal, value, rehearsal):
    if goal is None:
        return ""
    text = f"<= {time_text(goal)}"
    if rehearsal:
        return f"{text}, not judged"
    return text if value is None else f"{text}, {'met' if value <= goal else 'missed'}"


def beside_text(beside, series):
    found = series.get(beside.series, {})
    if beside.lap not in found:
        return ""
    nanos = found[beside.lap]["p50_ns"]
    if beside.rate is None:
        return f"{beside.what} {time_text(nanos)}"
    amount, unit, divisor = beside.rate
    if amount not in found or not nanos:
        return ""
    return f"{beside.what} {three(found[amount]['median'] / nanos / divisor)} {unit}"


WHAT = "what (5,562 x 384, cosine, top 10, unless it says otherwise)"
HEADER = [WHAT, "median", "medians of rounds", "goal", "beside, medians"]


def plain(rows, rehearsal):
    """For a terminal."""
    table = [HEADER[:4], *[row[:4] for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    text = [REHEARSAL] if rehearsal else []
    for row, full in zip(table, [HEADER, *rows]):
        text.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        if full is not HEADER and full[4]:
            text.append(f"    beside: {full[4]}")
    return "\n".join(text)


def markdown(rows):
    """For `benches/record/`. A rehearsal has none."""
    text = ["| " + " | ".join(row) + " |" for row in [HEADER, ["---"] * len(HEADER), *rows]]
    return "\n".join(text)
