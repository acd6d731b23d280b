"""PyTorch doing comparable work, in a process of its own that answers lines on its standard input as `megaring-gpu-check measure` does.

Searches hold their rows on the device; `seen` is from a query in the host's memory to row numbers in the host's memory. Matrices and rows are
random, never zeros. Where the work is the device's alone (`copy`, `matmul`), events on the device time it.
"""

import json
import sys
import time

DIM, ROWS, TOP = 384, 5_562, 10


def nanos(samples):
    """A summary as `megaring-gpu-check` makes it."""
    ordered = sorted(samples)
    rank = lambda percent: ordered[max(1, -(-len(ordered) * percent // 100)) - 1]  # noqa: E731
    return {
        "count": len(ordered), "min_ns": ordered[0], "p50_ns": rank(50), "p90_ns": rank(90), "p99_ns": rank(99),
        "max_ns": ordered[-1], "mean_ns": sum(ordered) / len(ordered),
    }


class Peers:
    """The cases. Data is made when it is first needed and kept."""

    def __init__(self, torch, device, tiny):
        self.torch = torch
        self.device = torch.device(device)
        self.is_cuda = self.device.type == "cuda"
        self.tiny = tiny
        self.kept = {}
        torch.manual_seed(1)

    def measure(self, case, repeat):
        method = getattr(self, "case_" + case.replace("-", "_"), None)
        if method is None:
            raise ValueError(f"unknown case {case!r}")
        return method(max(1, min(repeat, 3) if self.tiny else repeat))

    def case_launch(self, repeat):
        one = self.keep("one", lambda: self.torch.ones(1, device=self.device))
        return {"seen": self.by_clock(lambda: one.add_(1), repeat)}

    def case_graph(self, repeat):
        if not self.is_cuda:
            raise ValueError("graphs are CUDA's")
        return {"seen": self.by_clock(self.keep("graph", self.recorded).replay, repeat)}

    def recorded(self):
        one = self.keep("one", lambda: self.torch.ones(1, device=self.device))
        self.synchronise()
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            one.add_(1)
        return graph

    def case_query_1(self, repeat):
        return self.query("usual", ROWS, 1, repeat)

    def case_query_64(self, repeat):
        return self.query("usual", ROWS, 64, repeat)

    def case_query_all(self, repeat):
        return self.query("usual", ROWS, ROWS, repeat)

    def case_query_1m(self, repeat):
        return self.query("million", 1_000_000, 1, repeat)

    def query(self, name, count, batch, repeat):
        count, batch = (200, min(batch, 200)) if self.tiny else (count, batch)
        rows = self.keep(name, lambda: self.unit(count, DIM))
        queries = self.unit(batch + 64, DIM).cpu()
        if self.is_cuda:
            queries = queries.pin_memory()
        turn = iter(range(1 << 60))

        def search():
            start = next(turn) % 64
            sent = queries[start : start + batch].to(self.device, non_blocking=True)
            return self.torch.topk(sent @ rows.T, TOP, dim=1).indices.cpu()

        return {"seen": self.by_clock(search, repeat)}

    def case_copy(self, repeat):
        size = (1 << 20) if self.tiny else (4 << 30)
        source = self.keep("copy-from", lambda: self.noise(size))
        target = self.keep("copy-to", lambda: self.torch.empty_like(source))
        return {"seen": self.by_events(lambda: target.copy_(source), repeat), "bytes": 2 * size}

    def case_upload(self, repeat):
        size = (1 << 16) if self.tiny else 39_600_000
        source = self.keep("upload-from", lambda: self.noise(size).cpu())
        if self.is_cuda and not source.is_pinned():
            source = self.kept["upload-from"] = source.pin_memory()
        target = self.keep("upload-to", lambda: self.torch.empty(size, dtype=self.torch.uint8, device=self.device))
        return {"seen": self.by_clock(lambda: target.copy_(source, non_blocking=True), repeat), "bytes": size}

    def case_matmul_int8(self, repeat):
        side = 64 if self.tiny else 8192
        make = lambda: self.noise(side * side).view(self.torch.int8).view(side, side)  # noqa: E731
        a, b = (self.keep(f"int8-{part}", make) for part in "ab")
        # The second factor column by column, as the matrix units like it.
        return {"seen": self.by_events(lambda: self.torch._int_mm(a, b.t()), repeat), "operations": 2 * side**3}

    def case_matmul_bf16(self, repeat):
        side = 64 if self.tiny else 8192
        make = lambda: self.torch.randn(side, side, device=self.device).to(self.torch.bfloat16)  # noqa: E731
        a, b = (self.keep(f"bf16-{part}", make) for part in "ab")
        return {"seen": self.by_events(lambda: a @ b, repeat), "operations": 2 * side**3}

    def unit(self, count, dim):
        return self.torch.nn.functional.normalize(self.torch.randn(count, dim, device=self.device), dim=1)

    def noise(self, size):
        return self.torch.randint(0, 256, (size,), dtype=self.torch.uint8, device=self.device)

    def keep(self, name, make):
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def synchronise(self):
        if self.is_cuda:
            self.torch.cuda.synchronize(self.device)

    def by_clock(self, work, repeat):
        samples = []
        for turn in range(repeat + 10):
            begun = time.perf_counter_ns()
            work()
            self.synchronise()
            if turn >= 10:
                samples.append(time.perf_counter_ns() - begun)
        return nanos(samples)

    def by_events(self, work, repeat):
        if not self.is_cuda:
            return self.by_clock(work, repeat)
        samples = []
        for turn in range(repeat + 3):
            begun, ended = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            work()
            ended.record()
            self.synchronise()
            if turn >= 3:
                samples.append(int(begun.elapsed_time(ended) * 1e6))
        return nanos(samples)


def main():
    device, tiny = sys.argv[1], "--tiny" in sys.argv
    try:
        import torch
    except ImportError:
        print(json.dumps({"missing": "PyTorch is not installed"}), flush=True)
        return 0
    if device.startswith("cuda") and not torch.cuda.is_available():
        print(json.dumps({"missing": "PyTorch sees no GPU"}), flush=True)
        return 0
    peers = Peers(torch, device, tiny)
    print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "device": device}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            continue
        asked = json.loads(line)
        told = {"case": asked["case"], "repeat": asked["repeat"]}
        try:
            with torch.inference_mode():
                told.update(peers.measure(asked["case"], asked["repeat"]))
        except Exception as error:  # One case that this PyTorch cannot do is no reason to lose the others.
            told["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
