"""Hyperscan, in a process of its own that answers lines on its standard input as `megaring-peer` does: `hyperscan_peer.py THREADS`.

Each text is one block, each word is told once (single-match). Its Python package calls Python for every match, which takes much of the time; so
each of as many processes as there are threads has a part of the texts, which it keeps.
"""

import array
import json
import multiprocessing
import sys
import time
from pathlib import Path


def read_texts(folder, number):
    """The texts of one set, as `megaring-peer` wrote them."""
    folder = Path(folder)
    whole, offsets = (folder / f"texts-{number}").read_bytes(), array.array("Q")
    offsets.frombytes((folder / f"offsets-{number}").read_bytes())
    if sys.byteorder == "big":
        offsets.byteswap()
    return [whole[start:end] for start, end in zip(offsets, offsets[1:])]


def parts(texts, count):
    """The texts in `count` runs of about as many bytes."""
    whole, runs, run, size = sum(map(len, texts)), [], [], 0
    for text in texts:
        run.append(text)
        size += len(text)
        if size * count >= whole * (len(runs) + 1) and len(runs) + 1 < count:
            runs.append(run)
            run = []
    return runs + [run] + [[]] * (count - len(runs) - 1)


class Scanner:
    """The words' automaton."""

    def __init__(self, patterns):
        import hyperscan

        self.database = hyperscan.Database()
        self.database.compile(
            expressions=[escaped(pattern) for pattern, _ in patterns],
            ids=list(range(len(patterns))),
            elements=len(patterns),
            flags=hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_SINGLEMATCH,
        )
        self.bits = [1 << bit for _, bit in patterns]

    def masks(self, texts):
        """16 bytes for each text, the lowest first."""
        scan, bits, found, masks = self.database.scan, self.bits, set(), []
        add = lambda word, start, end, flags, context: found.add(word) and None  # noqa: E731
        for text in texts:
            mask = 0
            if text:
                scan(text, match_event_handler=add)
                for word in found:
                    mask |= bits[word]
                found.clear()
            masks.append(mask.to_bytes(16, "little"))
        return b"".join(masks)


def escaped(pattern):
    """The bytes of a pattern as an expression without any special character."""
    return "".join(f"\\x{byte:02x}" for byte in pattern.encode()).encode()


def work(pipe, scanner, sets):
    """Scans this process's part of a set each time its number comes."""
    while True:
        try:
            pipe.send_bytes(scanner.masks(sets[pipe.recv()]))
        except EOFError:
            return


class Peer:
    """The processes."""

    def __init__(self, threads):
        self.threads, self.pipes = threads, []

    def answer(self, asked):
        return self.load(asked) if asked["do"] == "load" else self.masks(asked)

    def load(self, asked):
        import hyperscan

        scanner = Scanner(asked["patterns"])
        shares = [parts(read_texts(asked["folder"], number), self.threads) for number in range(asked["sets"])]
        fork = multiprocessing.get_context("fork")
        for thread in range(self.threads):
            own, other = fork.Pipe()
            process = fork.Process(target=work, args=(other, scanner, [share[thread] for share in shares]), daemon=True)
            process.start()
            self.pipes.append(own)
        return {"version": f"hyperscan {hyperscan.__version__}", "threads": self.threads}

    def masks(self, asked):
        took, found = [], b""
        for number in asked["sets"]:
            begun = time.perf_counter_ns()
            for pipe in self.pipes:
                pipe.send(number)
            found = b"".join(pipe.recv_bytes() for pipe in self.pipes)
            took.append((time.perf_counter_ns() - begun) / 1e3)
        if asked.get("out"):
            Path(asked["out"]).write_bytes(found)
        return {"us": took}


def main():
    peer = Peer(int(sys.argv[1]))
    for line in sys.stdin:
        try:
            told = peer.answer(json.loads(line))
        except Exception as error:  # Whoever asks tells it, and goes on without.
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
