"""One library that searches exactly, in a process of its own that answers lines on its standard input as `megaring-peer` does.

`search_peer.py LIBRARY THREADS`; cosine of rows of length 1 is their inner product. Rows and queries are in memory before the clock starts.
"""

import json
import sys
import time

# Scores that are held at a time (256 MiB), where a library makes all of them.
SCORES = 1 << 26


def partition(scores, k):
    """The k best columns of each row, in order."""
    import numpy

    best = numpy.argpartition(scores, -k, axis=1)[:, -k:]
    order = numpy.argsort(-numpy.take_along_axis(scores, best, axis=1), axis=1)
    return numpy.take_along_axis(best, order, axis=1)


class Numpy:
    """A product of matrices, and a partition."""

    def __init__(self, rows, threads):
        self.rows = rows

    @staticmethod
    def version():
        import numpy

        return f"numpy {numpy.__version__}"

    def search(self, queries, k):
        import numpy

        step = max(1, SCORES // len(self.rows))

        def best(asked):
            return partition(asked @ self.rows.T, k)

        return numpy.concatenate([best(queries[start : start + step]) for start in range(0, len(queries), step)])


class Faiss:
    """IndexFlatIP."""

    def __init__(self, rows, threads):
        import faiss

        faiss.omp_set_num_threads(threads)
        self.index = faiss.IndexFlatIP(rows.shape[1])
        self.index.add(rows)

    @staticmethod
    def version():
        import faiss

        return f"faiss-cpu {faiss.__version__}"

    def search(self, queries, k):
        return self.index.search(queries, k)[1]


class Usearch:
    """Its exact search, without an index."""

    def __init__(self, rows, threads):
        self.rows, self.threads = rows, threads

    @staticmethod
    def version():
        import usearch

        return f"usearch {usearch.__version__}"

    def search(self, queries, k):
        from usearch.index import MetricKind, search

        # One query's answer has no dimension for the queries.
        return search(self.rows, queries, k, MetricKind.IP, exact=True, threads=self.threads).keys.reshape(len(queries), -1)


class Numkong:
    """Products with packed rows, a part of the rows for each thread, and numpy's partition."""

    def __init__(self, rows, threads):
        import numpy
        from concurrent.futures import ThreadPoolExecutor

        import numkong

        self.packed = [numkong.dots_pack(part, dtype="f32") for part in numpy.array_split(rows, threads)]
        self.rows, self.pool = len(rows), ThreadPoolExecutor(threads)

    @staticmethod
    def version():
        import numkong

        return f"numkong {numkong.__version__}"

    def search(self, queries, k):
        import numkong
        import numpy

        def best(asked):
            parts = self.pool.map(lambda part: numpy.asarray(numkong.dots_packed(asked, part)), self.packed)
            return partition(numpy.concatenate(list(parts), axis=1), k)

        step = max(1, SCORES // self.rows)
        return numpy.concatenate([best(queries[start : start + step]) for start in range(0, len(queries), step)])


class Torch:
    """A product of matrices, and topk, on the processor."""

    def __init__(self, rows, threads):
        import torch

        torch.set_num_threads(threads)
        self.rows = torch.from_numpy(rows)

    @staticmethod
    def version():
        import torch

        return f"torch {torch.__version__}"

    def search(self, queries, k):
        import torch

        step = max(1, SCORES // len(self.rows))
        with torch.inference_mode():
            parts = torch.from_numpy(queries).split(step)
            return torch.cat([torch.topk(part @ self.rows.T, k, dim=1).indices for part in parts]).numpy()


LIBRARIES = {"numpy": Numpy, "faiss": Faiss, "usearch": Usearch, "numkong": Numkong, "torch": Torch}


class Peer:
    """What is loaded."""

    def __init__(self, library, threads):
        self.library, self.threads = LIBRARIES[library], threads
        self.loaded = self.queries = None

    def answer(self, asked):
        do = asked.pop("do")
        if do == "load":
            return self.load(**asked)
        if do == "search":
            return self.search(**asked)
        raise ValueError(f"unknown work {do!r}")

    def load(self, rows, queries):
        import numpy

        self.loaded = None
        self.queries = numpy.load(queries)
        matrix = numpy.load(rows)
        self.loaded = self.library(matrix, self.threads)
        return {"rows": len(matrix), "version": self.library.version(), "threads": self.threads}

    def search(self, firsts, count, k, metric, ids=False):
        if metric != "cosine":
            raise ValueError(f"only cosine is asked of peers, not {metric!r}")
        took, found = [], []
        for first in firsts:
            queries = self.queries[first : first + count]
            begun = time.perf_counter_ns()
            rows = self.loaded.search(queries, k)
            took.append((time.perf_counter_ns() - begun) / 1e3)
            if ids:
                found.append(rows.tolist())
        return {"us": took, "ids": found}


def main():
    peer = Peer(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        try:
            told = peer.answer(json.loads(line))
        except Exception as error:  # Whoever asks tells it, and goes on without this library.
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
