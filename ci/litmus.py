"""Runs the litmus tests in kernels/litmus: all executions that PTX's memory model allows, and what must not happen.

    python3 ci/litmus.py [FILE ...]

A file holds what the threads of one hand-over do, in the syntax of Dartagnan (https://github.com/hernanponcedeleon/Dat3M),
and ends with `~exists (CONDITION)`: no execution may end so. Each fence, and each order of an access, must be there for a
reason: without it the condition must be able to come true. A line `needless: WHAT` in the description excuses one.

The model is PTX 7.5's (ISA manual, "Memory Consistency Model"; Lustig, Sahasrabuddhe and Giroux, "A Formal Analysis of the
NVIDIA PTX Memory Consistency Model", 2019), without proxies and fence.sc. Threads are straight code, and the writes to a
place are taken as ordered one after the other, which holds where no two of them race. The host's accesses count as
strong ones of the system, its x86 being at least as strict.
"""

import itertools
import pathlib
import re
import sys

INSTRUCTION = re.compile(
    r"(?P<op>ld|st|atom|red|fence|bar)\.(?P<order>[a-z_]+)(\.(?P<scope>cta|gpu|sys|sync))?(\.plus)?\s*(?P<rest>.*)$"
)


class Event:
    """A read, a write, a fence or a barrier. An atomic is a read and a write."""

    def __init__(self, thread, kind, order, scope, place=None, value=None, register=None):
        self.thread, self.kind, self.order, self.scope = thread, kind, order, scope
        self.place, self.value, self.register = place, value, register
        self.partner = None  # the read of an atomic's write

    def is_strong(self):
        return self.order != "weak"


class Test:
    """A file: threads with their places on the machine, and the condition."""

    def __init__(self, path):
        text = path.read_text(encoding="utf-8")
        self.name = path.stem
        self.needless = re.findall(r"needless: (.*?)[;\"\n]", text)
        body = text[text.index("}") + 1 :]
        table, _, condition = body.partition("~exists")
        rows = [[cell.strip() for cell in line.rstrip(" ;").split("|")] for line in table.splitlines() if ";" in line]
        self.threads = [re.fullmatch(r"P(\d+)@cta (\d+),gpu (\d+)", cell).groups() for cell in rows[0]]
        self.code = [[row[at] for row in rows[1:] if row[at]] for at in range(len(self.threads))]
        self.condition = [
            [(int(t), r, int(v)) for t, r, v in re.findall(r"P(\d+):(\w+) == (\d+)", part)]
            for part in condition.split("\\/")
        ]

    def weaker(self):
        """The same test with one fence left out or one order lost: what, and its code."""
        for thread, lines in enumerate(self.code):
            for at, line in enumerate(lines):
                lost = re.sub(r"\.(acquire|release|acq_rel)\.", ".relaxed.", line)
                if line.startswith("fence"):
                    changed = lines[:at] + lines[at + 1 :]
                elif lost != line:
                    changed = lines[:at] + [lost] + lines[at + 1 :]
                else:
                    continue
                yield f"P{thread} {line}", self.code[:thread] + [changed] + self.code[thread + 1 :]

    def happens(self, code):
        """Whether some execution of `code` ends as it must not."""
        events, program = self.events(code)
        return any(self.is_met(events, rf) for rf, co in candidates(events) if self.is_allowed(events, program, rf, co))

    def events(self, code):
        places = sorted({place for lines in code for line in lines for place in re.findall(r"\b[a-z]\w*(?=,|$)", line)})
        events = [Event(None, "W", "weak", "sys", place, 0) for place in places if not re.fullmatch(r"r\d+", place)]
        program = set()
        for thread, lines in enumerate(code):
            before = []
            for line in lines:
                made = parse(thread, line)
                program |= {(a, b) for a in before for b in made}
                program |= set(itertools.combinations(made, 2))
                before += made
                events += made
        return events, program

    def is_met(self, events, rf):
        found = {}
        for event in events:
            if event.kind == "R" and event.register:
                found[event.thread, event.register] = value_of(rf[event], rf)
        return any(all(found.get((t, r)) == v for t, r, v in part) for part in self.condition)

    def same_scope(self, a, b):
        def holds(one, other):
            if one.scope == "sys":
                return True
            if other.thread is None:
                return False
            _, cta, gpu = self.threads[one.thread]
            _, other_cta, other_gpu = self.threads[other.thread]
            return gpu == other_gpu and (one.scope == "gpu" or cta == other_cta)

        return holds(a, b) and holds(b, a)

    def is_allowed(self, events, po, rf, co):
        """The axioms."""
        seen = {(write, read) for read, write in rf.items()}
        fr = {(read, other) for read, write in rf.items() for a, other in co if a is write}
        rmw = {(event.partner, event) for event in events if event.partner}
        memory = [event for event in events if event.kind in "RW"]

        def morally_strong(a, b):
            if a is b or (a.kind in "RW" and b.kind in "RW" and a.place != b.place):
                return False
            if (a, b) in po or (b, a) in po:
                return True
            return a.is_strong() and b.is_strong() and a.thread is not None and self.same_scope(a, b)

        def strong(kind):
            return [event for event in memory if event.kind == kind and event.is_strong() and event.thread is not None]

        observation = closed_by({(a, b) for a, b in seen if morally_strong(a, b)}, rmw)
        fences = [event for event in events if event.kind == "F"]
        release = {(fence, write) for fence in fences for write in strong("W") if (fence, write) in po}
        acquire = {(read, fence) for fence in fences for read in strong("R") if (read, fence) in po}
        for a, b in [(a, b) for a in memory for b in memory if a is b or ((a, b) in po and a.place == b.place)]:
            if a.kind == b.kind == "W" and a.order in ("release", "acq_rel") and b.is_strong():
                release.add((a, b))
            if a.kind == b.kind == "R" and a.is_strong() and b.order in ("acquire", "acq_rel"):
                acquire.add((a, b))
        sync = {(a, b) for a, b in join(join(release, observation), acquire) if morally_strong(a, b)}
        barriers = [event for event in events if event.kind == "B"]
        for a, b in itertools.permutations(barriers, 2):
            if a.place == b.place and self.threads[a.thread][1:] == self.threads[b.thread][1:]:
                sync.add((a, b))
        start = {(a, b) for a in events if a.thread is None for b in events if b.thread is not None}
        base = transitive(po | sync | start)
        cause = {(a, b) for a, b in base if a.kind in "RW" and b.kind in "RW" and a.place == b.place}
        cause |= join(observation, cause)
        if any(a.kind == b.kind == "W" and (a, b) not in co for a, b in cause if a is not b):
            return False
        strong_fr = {(a, b) for a, b in fr if morally_strong(a, b)}
        strong_co = {(a, b) for a, b in co if morally_strong(a, b)}
        if join(strong_fr, strong_co) & rmw:
            return False
        return not any((b, a) in cause for a, b in seen | fr)


def parse(thread, line):
    """A line's events."""
    match = INSTRUCTION.fullmatch(line)
    if match is None:
        raise ValueError(f"not understood: {line}")
    op, order, scope, rest = match["op"], match["order"], match["scope"] or "cta", match["rest"]
    if op == "fence":
        return [Event(thread, "F", order, scope)]
    if op == "bar":
        return [Event(thread, "B", order, "cta", place=f"barrier {rest}")]
    names = [name.strip() for name in rest.split(",")]
    if op == "ld":
        return [Event(thread, "R", order, scope, names[1], register=names[0])]
    if op == "st":
        return [Event(thread, "W", order, scope, names[0], int(names[1]))]
    register, place, added = names if op == "atom" else [None, *names]
    read_order = {"release": "relaxed"}.get(order, order)
    read = Event(thread, "R", read_order, scope, place, register=register)
    write = Event(thread, "W", {"acquire": "relaxed"}.get(order, order), scope, place, int(added))
    write.partner = read
    return [read, write]


def value_of(write, rf):
    """An atomic adds to what it has read."""
    return write.value + (value_of(rf[write.partner], rf) if write.partner else 0)


def candidates(events):
    """All choices of what each read sees, and of the order of each place's writes."""
    reads = [event for event in events if event.kind == "R"]
    writes = {}
    for event in events:
        if event.kind == "W":
            writes.setdefault(event.place, []).append(event)
    orders = [[(own[0], *rest) for rest in itertools.permutations(own[1:])] for own in writes.values()]
    for chosen in itertools.product(*(writes[read.place] for read in reads)):
        rf = dict(zip(reads, chosen))
        if any(is_own_future(read, rf) for read in reads):
            continue
        for order in itertools.product(*orders):
            yield rf, {pair for line in order for pair in itertools.combinations(line, 2)}


def is_own_future(read, rf):
    """No value comes out of thin air: whether atomics see each other in a circle."""
    at, steps = rf[read], 0
    while at.partner is not None and steps <= len(rf):
        at, steps = rf[at.partner], steps + 1
    return at.partner is not None


def join(first, second):
    by_start = {}
    for a, b in second:
        by_start.setdefault(a, []).append(b)
    return {(a, c) for a, b in first for c in by_start.get(b, ())}


def closed_by(relation, link):
    """Observation goes on through atomics."""
    while True:
        more = relation | join(join(relation, link), relation)
        if more == relation:
            return relation
        relation = more


def transitive(relation):
    while True:
        more = relation | join(relation, relation)
        if more == relation:
            return relation
        relation = more


def main(paths):
    tests = [Test(path) for path in paths]
    failed = 0
    for test in tests:
        faults = ["it can end as it must not"] if test.happens(test.code) else []
        weaker = dict(test.weaker())
        for what, code in weaker.items():
            if test.happens(code) == (what in test.needless):
                faults.append(f"{what}: " + ("it is needed" if what in test.needless else "it is not needed"))
        faults += [f"{what}: there is no such line" for what in test.needless if what not in weaker]
        print(f"{test.name}: {'; '.join(faults) or f'never so, and so without any of {len(weaker)} orders'}")
        failed += bool(faults)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    folder = pathlib.Path(__file__).resolve().parent.parent / "kernels" / "litmus"
    sys.exit(main([pathlib.Path(path) for path in sys.argv[1:]] or sorted(folder.glob("*.litmus"))))
