"""Measuring in alternation: each round goes through all modes of megaring and then through PyTorch, so that what changes on the machine
meanwhile meets them all. While one measures, the others have nothing on the device."""

import statistics
import time
from dataclasses import dataclass

from .programs import Ended, OutOfTime

# Longest answer to one request; the first of a case also makes its data.
ANSWER_S = 120


@dataclass(frozen=True)
class Request:
    """What one program is asked in each round. `count` is how often it repeats; a quick run asks for fewer."""

    case: str
    mode: str = ""
    path: str = ""
    count: int = 1
    quick: int = 1

    @property
    def series(self):
        """Its name in the results: `ring/persistent/nop`, or `torch/query-1`."""
        return f"{self.path}/{self.mode}/{self.case}" if self.mode else f"torch/{self.case}"


def megaring_requests(wgpu=True):
    """By mode and path, since each change of those starts the backend anew."""
    asked = wgpu_requests() if wgpu else []
    for mode in ("persistent", "launch", "graph"):
        asked += [
            Request("nop", mode, "ring", 5000, 2000),
            Request("query-1", mode, "ring", 1000, 500),
            Request("query-64", mode, "ring", 300, 150),
        ]
        if mode != "graph":
            asked += [
                Request("nop-rate", mode, "ring", 100_000, 50_000),
                Request("query-rate", mode, "ring", 10_000, 5_000),
                Request("query-all", mode, "ring", 20, 10),
                Request("query-1m", mode, "ring", 200, 100),
                Request("encode", mode, "ring", 10, 6),
            ]
    for mode, part in (("persistent", 1), ("cpu", 0.2)):
        asked += [
            Request("nop", mode, "engine", int(2000 * part), int(1000 * part)),
            Request("query-1", mode, "engine", int(1000 * part), int(500 * part)),
            Request("query-64", mode, "engine", int(300 * part), int(150 * part)),
            Request("query-all", mode, "engine", max(3, int(20 * part)), max(2, int(10 * part))),
            Request("query-1m", mode, "engine", int(200 * part), int(100 * part)),
            Request("encode", mode, "engine", max(3, int(10 * part)), max(2, int(6 * part))),
        ]
    return asked


def wgpu_requests():
    """The wgpu backend, whose jobs are submissions to a driver: as CUDA's launch mode, it has no kernel that stays."""
    return [
        Request("nop", "wgpu", "ring", 1000, 500),
        Request("query-1", "wgpu", "ring", 1000, 500),
        Request("query-64", "wgpu", "ring", 200, 100),
        Request("query-rate", "wgpu", "ring", 5_000, 2_000),
        Request("query-all", "wgpu", "ring", 20, 10),
        Request("query-1m", "wgpu", "ring", 100, 50),
        Request("encode", "wgpu", "ring", 10, 6),
        Request("query-1", "wgpu", "engine", 1000, 500),
        Request("query-all", "wgpu", "engine", 20, 10),
        Request("encode", "wgpu", "engine", 10, 6),
    ]


def torch_requests():
    return [
        Request("launch", count=2000, quick=1000),
        Request("graph", count=2000, quick=1000),
        Request("query-1", count=500, quick=200),
        Request("query-64", count=300, quick=150),
        Request("query-all", count=20, quick=10),
        Request("query-1m", count=100, quick=50),
        Request("copy", count=20, quick=10),
        Request("upload", count=20, quick=10),
        Request("matmul-int8", count=20, quick=10),
        Request("matmul-bf16", count=20, quick=10),
    ]


class Alternation:
    """The programs and what they have answered. `peer` may be `None`; `wgpu` is whether that backend can be asked."""

    def __init__(self, program, peer, quick, limit, wgpu=False):
        self.program = program
        self.peer = peer
        self.quick = quick
        self.wgpu = wgpu
        self.end = time.monotonic() + limit
        self.series = {}
        self.errors = []

    def rounds(self, count):
        """As many rounds as there is time for, up to `count`; answers how many. The last one always ended in time."""
        took = []
        for done in range(count):
            # The first also makes the data, so it tells nothing about the others once there is another.
            if took and time.monotonic() + 1.2 * max(took[1:] or took) > self.end:
                return done
            begun = time.monotonic()
            self.one_round()
            took.append(time.monotonic() - begun)
        return count

    def one_round(self):
        for request in megaring_requests(self.wgpu):
            self.ask(self.program, request)
        self.program.send({"stop": True})
        self.program.receive(self.left())
        if self.peer is not None:
            try:
                for request in torch_requests():
                    self.ask(self.peer, request)
            except (Ended, OutOfTime) as error:
                self.note(f"torch: {error}")
                self.peer = None

    def ask(self, program, request):
        count = request.quick if self.quick else request.count
        asked = {"case": request.case, "repeat": max(1, count)}
        if request.mode:
            asked.update(mode=request.mode, path=request.path)
        program.send(asked)
        found = program.receive(self.left())
        if "error" in found:
            self.note(f"{request.series}: {found['error']}")
        else:
            self.series.setdefault(request.series, []).append(found)

    def note(self, error):
        if error not in self.errors:
            self.errors.append(error)

    def left(self):
        return max(1.0, min(ANSWER_S, self.end - time.monotonic()))


def summarise(rounds):
    """Of one series' rounds, for each lap (`seen`, `exact`, `device` …): the median over rounds of each percentile, and the smallest and
    largest median. Of plain numbers such as `per_second`: median, smallest, largest."""
    laps = {}
    for lap in sorted({key for one in rounds for key in one}):
        values = [one[lap] for one in rounds if lap in one]
        if all(isinstance(value, dict) and value.get("count") for value in values):
            medians = [value["p50_ns"] for value in values]
            keys = ("p50_ns", "p99_ns", "min_ns")
            laps[lap] = {key: statistics.median(value[key] for value in values) for key in keys}
            laps[lap].update(spread_ns=[min(medians), max(medians)], samples=sum(value["count"] for value in values))
        elif lap in ("per_second", "bytes", "operations"):
            laps[lap] = {"median": statistics.median(values), "spread": [min(values), max(values)]}
    return laps
