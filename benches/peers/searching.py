"""Exact search by cosine, megaring and the libraries on the same rows with the same queries."""

import os
import shutil
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, replace

from .party import LOADED, SLACK, SOON, LeftOut, Party, script
from .rounds import alternate
from .sameness import compare

OURS = "megaring"


@dataclass(frozen=True)
class Data:
    """Rows, and the searches among them: (queries, top) each."""

    # The real sample repeated with noise, or generated rows.
    kind: str
    rows: int
    searches: tuple
    dim: int = 384
    # Those who take part; None is everyone.
    peers: tuple = None
    # Whether the rows themselves are the queries, all at once: megaring joins them, the others search for them. A row's own number is one of its
    # hits then.
    joins: bool = False

    def title(self):
        return f"{'join' if self.joins else 'search'}, {self.kind} {self.rows:,} x {self.dim:,}"


BATCHES = tuple((count, 10) for count in (1, 16, 64, 256, 5_562))
FEW = ((1, 10), (64, 10))
TOPS = tuple((count, top) for top in (1, 100, 1_000) for count in (1, 64))
DATA = [
    Data("real", 5_562, BATCHES),
    Data("generated", 5_562, BATCHES),
    Data("real", 110_000, BATCHES),
    Data("generated", 110_000, BATCHES + TOPS),
    Data("generated", 1_000_000, BATCHES),
    Data("generated", 110_000, ((110_000, 11),), peers=("faiss",), joins=True),
    # Every width.
    *(Data("generated", 20_000, FEW, dim) for dim in (1, 2, 3, 8, 32, 128, 768, 1_536, 4_096)),
    # Whether the cost grows as the rows do; beside one peer, as a million rows more take memory in each.
    *(Data("generated", rows, FEW, 128, ("numpy",)) for rows in (1_000, 10_000, 100_000, 1_000_000, 4_000_000)),
]
QUICK_DATA = [Data("real", 5_562, FEW), Data("generated", 110_000, FEW)]
TINY_DATA = [Data("real", 300, ((1, 10), (16, 10))), Data("generated", 300, ((1, 10), (16, 3)), 5), Data("generated", 300, ((300, 4),), joins=True)]
# Sets of the largest batch that queries are made for; smaller batches have as many more.
SETS, FEWEST_QUERIES = 4, 2_048
# Sets of each size whose answers are compared.
COMPARED = 2
# Seconds that a join may last a call.
JOIN_LONGEST = 300
# A query may take so many times less in a larger batch.
FEWER = 3


class TooLong(Exception):
    """A call takes too long to be measured."""


class Searching:
    """All cases of search."""

    def __init__(self, options, plan, results):
        self.options, self.plan, self.results = options, plan, results
        self.data = TINY_DATA if options.tiny else QUICK_DATA if options.quick else DATA
        self.peers = [peer for peer in options.peer if peer != "hyperscan"]

    def run(self):
        for data in self.data:
            peers = [peer for peer in self.peers if data.peers is None or peer in data.peers]
            if not peers:
                continue
            try:
                self.enough_room(data, peers)
                with ExitStack() as stack:
                    self.run_data(stack, data, peers)
            except LeftOut as error:
                self.results.case(data.title())
                for peer in peers:
                    self.results.left_out(data.title(), peer, str(error))

    def enough_room(self, data, peers):
        """megaring has rows and codes, on disk and mapped; each peer up to two copies of the rows while it loads."""
        size = data.rows * data.dim * 4
        need, have = size * (2 * len(peers) + 4), available_memory()
        if have and need > have:
            raise LeftOut(f"it needs about {need >> 30} GiB of memory, and {have >> 30} GiB are there")
        need, have = size * 3, shutil.disk_usage(self.options.data).free
        if need > have:
            raise LeftOut(f"it needs about {need >> 30} GiB of disk, and {have >> 30} GiB are free")

    def run_data(self, stack, data, peers):
        options = self.options
        folder, log = options.data, options.folder / "search.log"
        ours = stack.enter_context(options.megaring(log))
        queries = data.rows if data.joins else max(SETS * max(count for count, _ in data.searches), FEWEST_QUERIES)
        plan = replace(self.plan, longest=JOIN_LONGEST) if data.joins else self.plan
        made = {"do": "make", "kind": data.kind, "rows": data.rows, "dim": data.dim, "queries": 1 if data.joins else queries, "seed": 1, "folder": str(folder)}
        files = {"rows": folder / "rows.npy", "queries": folder / ("rows.npy" if data.joins else "queries.npy")}
        ours.ask(made, LOADED)
        load = {"do": "load", **{name: str(file) for name, file in files.items()}}
        parties, versions = {OURS: ours}, {OURS: ours.ask(load, LOADED)["version"]}
        for name in peers:
            try:
                party = stack.enter_context(Party(name, script("search", name, options.threads), log, options.threads))
                versions[name] = party.ask(load, LOADED)["version"]
                parties[name] = party
            except LeftOut as error:
                self.results.case(data.title())
                self.results.left_out(data.title(), name, str(error))
        Cases(data, parties, versions, queries, plan, self.results).run()


class Cases:
    """The cases of one set of rows."""

    def __init__(self, data, parties, versions, queries, plan, results):
        self.data = data
        self.parties, self.versions, self.queries, self.plan, self.results = parties, versions, queries, plan, results
        # What a query took in the case before, in microseconds: about what one of a larger batch takes at most.
        self.each = {}

    def run(self):
        for count, top in self.data.searches:
            if len(self.parties) < 2:
                return
            case = f"{self.data.title()}, {count:,} {'query' if count == 1 else 'queries'}, top {top:,}"
            self.results.case(case)
            try:
                self.run_case(case, count, top)
            except LeftOut as error:
                self.drop(case, [name for name in self.parties if name != OURS], f"megaring could not go on: {error}")
                return

    def run_case(self, case, count, top):
        found, first = self.first_answers(case, count, top)
        if len(first) < 2:
            return
        ask = lambda name, begin, calls: self.search(name, count, top, range(begin, begin + calls))["us"]  # noqa: E731
        samples, left_out = alternate(first, ask, self.plan)
        for name, reason in left_out.items():
            if name == OURS:
                raise LeftOut(reason)
            self.drop(case, [name], reason)
        self.each.update((name, statistics.median(taken) / count) for name, taken in samples.items())
        for name in samples:
            if name != OURS:
                self.tell(case, count, name, samples, found)

    def first_answers(self, case, count, top):
        """Rows found by each that does not take too long, and about what a call takes."""
        found, first = {}, {}
        for name in list(self.parties):
            try:
                self.within_limit("would take up to", self.each.get(name, 0) * count, FEWER)
                answer = self.search(name, count, top, [0], ids=True)
                self.within_limit("takes", answer["us"][0], 1)
                again = self.search(name, count, top, range(1, COMPARED), ids=True)
                found[name], first[name] = answer["ids"] + again["ids"], again["us"][-1]
            except TooLong as error:
                if name == OURS:
                    raise LeftOut(f"megaring {error}") from error
                self.results.left_out(case, name, f"it {error}")
            except LeftOut as error:
                if name == OURS:
                    raise
                self.drop(case, [name], str(error))
        return found, first

    def within_limit(self, verb, us, times):
        seconds, most = us / 1e6, self.plan.longest * times
        if seconds > most:
            raise TooLong(f"{verb} {seconds:.0f} s a call, more than {most:.0f} s")

    def search(self, name, count, top, sets, ids=False):
        firsts = [self.first(number, count) for number in sets]
        work = "join" if self.data.joins and name == OURS else "search"
        asked = {"do": work, "firsts": firsts, "count": count, "k": top, "metric": "cosine", "ids": ids}
        return self.parties[name].ask(asked, SLACK + 2 * self.plan.longest * len(firsts))

    def first(self, number, count):
        """The first query of a set."""
        return number % (self.queries // count) * count

    def tell(self, case, count, name, samples, found):
        same, differing = True, 0
        for number, (own, other) in enumerate(zip(found[OURS], found[name])):
            verdict = compare(own, other, self.data.dim, lambda pairs: self.scores(pairs, self.first(number, count)))
            same, differing = same and verdict.same, differing + verdict.differing
            if verdict.better:
                self.results.is_wrong(f"{case}: {name} found better rows for {verdict.better} queries")
        more = {"in_another_order": differing, "compared": COMPARED * count, "version": self.versions[name]}
        self.results.row(case, name, samples[name], samples[OURS], same, more)

    def scores(self, pairs, begin):
        asked = [(begin + query, row) for query, row in pairs]
        return self.parties[OURS].ask({"do": "scores", "pairs": asked}, SOON)["scores"]

    def drop(self, case, names, reason):
        for name in names:
            self.results.left_out(case, name, reason)
            self.parties.pop(name, None)


def available_memory():
    """Bytes that programs can have without swapping, or 0 where nobody can tell."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
