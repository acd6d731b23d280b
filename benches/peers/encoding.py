"""The encoder: which of the profile's words stand in each memory. megaring also makes coordinates and zones of them; the others do not."""

from contextlib import ExitStack

from .party import LOADED, LeftOut, Party, script
from .rounds import alternate

OURS, CRATE, OTHER = "megaring", "aho-corasick", "hyperscan"
COUNT, SETS = 110_000, 3


class Encoding:
    """The case of the encoder."""

    def __init__(self, options, plan, results):
        self.options, self.plan, self.results = options, plan, results
        self.count = 300 if options.tiny else COUNT
        self.case = f"encode, {self.count:,} memories"

    def run(self):
        try:
            with ExitStack() as stack:
                self.run_case(stack)
        except LeftOut as error:
            for name in (CRATE, OTHER) if OTHER in self.options.peer else (CRATE,):
                self.results.left_out(self.case, name, f"megaring could not go on: {error}")

    def run_case(self, stack):
        options, log = self.options, self.options.folder / "encode.log"
        ours = stack.enter_context(options.megaring(log))
        folder = str(options.data)
        about = ours.ask({"do": "memories", "sets": SETS, "count": self.count, "folder": folder}, LOADED)
        megabytes = sum(about["bytes"]) / SETS / 1e6
        self.results.case(f"{self.case}, {megabytes:.1f} MB, {about['words']} words")
        parties, versions = {OURS: ours, CRATE: ours}, {CRATE: "aho-corasick, DFA, overlapping"}
        if OTHER in options.peer:
            try:
                party = stack.enter_context(Party(OTHER, script(OTHER, options.threads), log, options.threads))
                load = {"do": "load", "folder": folder, "sets": SETS, "patterns": about["patterns"]}
                versions[OTHER] = party.ask(load, LOADED)["version"]
                parties[OTHER] = party
            except LeftOut as error:
                self.results.left_out(self.case, OTHER, str(error))
        self.measure(parties, versions, about)

    def measure(self, parties, versions, about):
        def ask(name, sets, **more):
            by = {} if name == OTHER else {"by": name}
            return parties[name].ask({"do": "masks", "sets": list(sets), **by, **more})["us"]

        first, masks = self.first_answers(parties, ask)
        turn = lambda name, begin, calls: ask(name, [number % SETS for number in range(begin, begin + calls)])  # noqa: E731
        samples, left_out = alternate(first, turn, self.plan)
        for name, reason in left_out.items():
            self.leave_out(parties, name, reason)
        for name in [name for name in samples if name != OURS]:
            same = masks[name] == masks[OURS]
            if not same:
                wrong = differing(masks[name], masks[OURS])
                self.results.is_wrong(f"{self.case}: {name} found other words in {wrong} memories")
            more = {"bytes": about["bytes"], "words": about["words"], "version": versions[name]}
            self.results.row(self.case, name, samples[name], samples[OURS], same, more)

    def first_answers(self, parties, ask):
        """About what a call of each takes, and its masks of all sets."""
        first, masks, out = {}, {}, self.options.data / "masks"
        for name in parties:
            found = []
            try:
                for number in range(SETS):
                    took = ask(name, [number], out=str(out))
                    found.append(out.read_bytes())
                first[name], masks[name] = took[-1], found
            except LeftOut as error:
                self.leave_out(parties, name, str(error))
        return first, masks

    def leave_out(self, parties, name, reason):
        """The crate is timed in megaring's program: without that neither can go on."""
        if parties[name] is parties[OURS]:
            raise LeftOut(reason)
        self.results.left_out(self.case, name, reason)


def differing(theirs, ours):
    """Memories with other masks, of 16 bytes each."""
    pairs = [(one, other) for one, other in zip(theirs, ours) if one != other]
    return sum(one[at : at + 16] != other[at : at + 16] for one, other in pairs for at in range(0, len(other), 16))
