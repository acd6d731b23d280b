"""The command line, the order of things, and what is written down."""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from gpu_check import machine
from gpu_check.programs import ask

from .encoding import Encoding
from .party import Party, processors
from .results import Results
from .rounds import Plan
from .searching import Searching

ABOUT = """Runs megaring and what its users would pick instead in alternation, on the same data, on as many threads. Prints a table and writes a
JSON object a line. A peer that is not there, or fails, is left out, with its reason. Exit status 0 where anything was measured; 1 where nothing
was, or where an answer of megaring is wrong. Needs Linux or macOS and Python 3.8 or later."""

FULL, QUICK = Plan(seconds=3, longest=10), Plan(seconds=1, longest=2)
TINY = Plan(seconds=0, longest=20, pause=0)
# Load of the machine from which on the figures are somebody else's too.
BUSY = 0.5


def arguments(argv):
    parser = argparse.ArgumentParser(prog="benches/peers", description=ABOUT)
    parser.add_argument("--program", type=Path, help="megaring-peer")
    parser.add_argument("--folder", type=Path, help="where data lies meanwhile, and logs stay; about 5 GB")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON lines (in the folder, peers.jsonl)")
    peers = ["numpy", "faiss", "usearch", "numkong", "torch", "hyperscan"]
    parser.add_argument("--peer", action="append", default=[], choices=peers, help="a peer that this Python has")
    parser.add_argument("--left-out", action="append", default=[], metavar="PEER=REASON", help="one that it has not")
    parser.add_argument("--quick", action="store_true", help="fewer cases, shorter")
    parser.add_argument("--gpu", action="store_true", help="let megaring use a GPU, too; the peers do not")
    parser.add_argument("--tiny", action="store_true", help="tests this script on tiny data; measures nothing")
    parser.add_argument("--self-test", action="store_true", help="test this script's own code and nothing else")
    options = parser.parse_args(argv)
    if not options.self_test and not (options.program and options.folder):
        parser.error("--program and --folder are needed")
    return options


def main(argv=None):
    options = arguments(argv)
    if options.self_test:
        from . import selftest

        return selftest.main()
    options.threads = processors()
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        options.folder = options.folder.resolve()
        out = options.out or options.folder / "peers.jsonl"
        with open(out, "w", encoding="utf-8") as file:
            return run(options, file, out)
    except OSError as error:
        print(f"benches/peers: {error}", file=sys.stderr)
        return 1


def run(options, file, out):
    for old in options.folder.glob("*.log"):
        old.unlink()
    # What is in it was left by a run that was killed.
    options.data = options.folder / "running"
    shutil.rmtree(options.data, ignore_errors=True)
    options.data.mkdir()
    try:
        return measure(options, file, out)
    finally:
        shutil.rmtree(options.data, ignore_errors=True)


def measure(options, file, out):
    command = [options.program.resolve(), "--folder", options.data, *(["--gpu"] if options.gpu else [])]
    options.megaring = lambda log: Party("megaring", command, log, options.threads)
    plan = TINY if options.tiny else QUICK if options.quick else FULL
    facts = about(options)
    results = Results(file, facts)
    print(f"{facts['cpu'] or 'unknown processor'}, {options.threads} threads for each, commit {facts['commit'] or 'unknown'}")
    if facts["load"] is not None and facts["load"] > BUSY:
        print(f"This machine is not quiet (load {facts['load']:.2f}): the figures are no record of anything.")
    for pair in options.left_out:
        results.left_out("all", *pair.split("=", 1))
    results.head()
    Encoding(options, plan, results).run()
    Searching(options, plan, results).run()
    print(f"\nRows measured: {results.measured}. A ratio is how many times as long the peer took. Written to {out}")
    return 0 if results.measured and not results.wrong else 1


def about(options):
    """What stands in every line."""
    commit = ask(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"])
    host = machine.host()
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = None
    return {
        "threads": options.threads, "quick": options.quick, "gpu": options.gpu, "commit": (commit or "").strip() or None,
        "cpu": host["cpu"], "system": host["system"], "load": load, "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
