"""Exact search: top 10 by cosine among rows of 384 values, megaring and the libraries on the same rows with the same queries."""

import os
import shutil
import statistics
from contextlib import ExitStack

from .party import LOADED, SLACK, SOON, LeftOut, Party, script
from .rounds import alternate
from .sameness import compare

OURS = "megaring"
DIM, TOP = 384, 10
# (kind, rows): the real sample repeated with noise, and generated rows.
DATA = [("real", 5_562), ("generated", 5_562), ("real", 110_000), ("generated", 110_000), ("generated", 1_000_000)]
COUNTS = (1, 16, 64, 256, 5_562)
QUICK_DATA, QUICK_COUNTS = [("real", 5_562), ("generated", 110_000)], (1, 64)
# Sets of the largest batch that queries are made for; smaller batches have as many more.
SETS, FEWEST_QUERIES = 4, 2_048
# Sets of each size whose answers are compared.
COMPARED = 2
# A query may take so many times less in a larger batch.
FEWER = 3


class TooLong(Exception):
    """A call takes too long to be measured."""


class Searching:
    """All cases of search."""

    def __init__(self, options, plan, results):
        self.options, self.plan, self.results = options, plan, results
        self.data, self.counts = (QUICK_DATA, QUICK_COUNTS) if options.quick else (DATA, COUNTS)
        if options.tiny:
            self.data, self.counts = [("real", 300), ("generated", 300)], (1, 16)
        self.peers = [peer for peer in options.peer if peer != "hyperscan"]

    def run(self):
        for kind, rows in self.data if self.peers else []:
            title = f"search, {kind} {rows:,} x {DIM}"
            try:
                self.enough_room(rows)
                with ExitStack() as stack:
                    self.run_data(stack, title, kind, rows)
            except LeftOut as error:
                self.results.case(title)
                for peer in self.peers:
                    self.results.left_out(title, peer, str(error))

    def enough_room(self, rows):
        """megaring has rows and codes, on disk and mapped; each peer up to two copies of the rows while it loads."""
        size = rows * DIM * 4
        need, have = size * (2 * len(self.peers) + 4), available_memory()
        if have and need > have:
            raise LeftOut(f"it needs about {need >> 30} GiB of memory, and {have >> 30} GiB are there")
        need, have = size * 3, shutil.disk_usage(self.options.data).free
        if need > have:
            raise LeftOut(f"it needs about {need >> 30} GiB of disk, and {have >> 30} GiB are free")

    def run_data(self, stack, title, kind, rows):
        options = self.options
        folder, log = options.data, options.folder / "search.log"
        ours = stack.enter_context(options.megaring(log))
        queries = max(SETS * self.counts[-1], FEWEST_QUERIES)
        made = {"do": "make", "kind": kind, "rows": rows, "queries": queries, "seed": 1, "folder": str(folder)}
        files = {name: folder / f"{name}.npy" for name in ("rows", "queries")}
        ours.ask(made, LOADED)
        load = {"do": "load", **{name: str(file) for name, file in files.items()}}
        parties, versions = {OURS: ours}, {OURS: ours.ask(load, LOADED)["version"]}
        for name in self.peers:
            try:
                party = stack.enter_context(Party(name, script("search", name, options.threads), log, options.threads))
                versions[name] = party.ask(load, LOADED)["version"]
                parties[name] = party
            except LeftOut as error:
                self.results.case(title)
                self.results.left_out(title, name, str(error))
        Cases(parties, versions, queries, self.plan, self.results).run(title, self.counts)


class Cases:
    """The cases of one set of rows."""

    def __init__(self, parties, versions, queries, plan, results):
        self.parties, self.versions, self.queries, self.plan, self.results = parties, versions, queries, plan, results
        # What a query took in the case before, in microseconds: what the next, larger one will take at most.
        self.each = {}

    def run(self, title, counts):
        for count in counts:
            if len(self.parties) < 2:
                return
            case = f"{title}, {count:,} {'query' if count == 1 else 'queries'}, top {TOP}"
            self.results.case(case)
            try:
                self.run_case(case, count)
            except LeftOut as error:
                self.drop(case, [name for name in self.parties if name != OURS], f"megaring could not go on: {error}")
                return

    def run_case(self, case, count):
        found, first = self.first_answers(case, count)
        if len(first) < 2:
            return
        ask = lambda name, begin, calls: self.search(name, count, range(begin, begin + calls))["us"]  # noqa: E731
        samples, left_out = alternate(first, ask, self.plan)
        for name, reason in left_out.items():
            if name == OURS:
                raise LeftOut(reason)
            self.drop(case, [name], reason)
        self.each.update((name, statistics.median(taken) / count) for name, taken in samples.items())
        for name in samples:
            if name != OURS:
                self.tell(case, count, name, samples, found)

    def first_answers(self, case, count):
        """Rows found by each that does not take too long, and about what a call takes."""
        found, first = {}, {}
        for name in list(self.parties):
            try:
                self.within_limit("would take up to", self.each.get(name, 0) * count, FEWER)
                answer = self.search(name, count, [0], ids=True)
                self.within_limit("takes", answer["us"][0], 1)
                again = self.search(name, count, range(1, COMPARED), ids=True)
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

    def search(self, name, count, sets, ids=False):
        firsts = [(number % (self.queries // count)) * count for number in sets]
        asked = {"do": "search", "firsts": firsts, "count": count, "k": TOP, "metric": "cosine", "ids": ids}
        return self.parties[name].ask(asked, SLACK + 2 * self.plan.longest * len(firsts))

    def tell(self, case, count, name, samples, found):
        same, differing = True, 0
        for number, (own, other) in enumerate(zip(found[OURS], found[name])):
            verdict = compare(own, other, lambda pairs: self.scores(pairs, number * count))
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
