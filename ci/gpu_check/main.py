"""The command line, the order of things, and what is written down."""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

from . import goals, machine
from .checks import Checks
from .figures import Alternation, summarise
from .programs import Ended, OutOfTime, Program, ask
from .steps import FAILED, Clock, Failed, Skipped, Step, counts, run_all

ABOUT = """Checks and measures megaring's CUDA backend, and its wgpu backend on the same GPU where Vulkan is to be had. Needs a Linux machine with an NVIDIA driver (580 or newer), Python 3.9 or newer and,
for what the figures stand beside, PyTorch; no Rust. FOLDER holds the programs megaring and megaring-gpu-check, built elsewhere (see
benches/record/README.md). Exit status 1 where a step failed; a step that cannot run is skipped, with its reason. Goals are told, not judged by
the exit status. No setting of the GPU is changed."""

# Seconds for everything, and of these what is kept for the figures.
FULL, QUICK, REHEARSAL = (1500, 500), (570, 200), (1500, 500)


def arguments(argv):
    parser = argparse.ArgumentParser(prog="ci/gpu-check", description=ABOUT)
    parser.add_argument("--bin", type=Path, metavar="FOLDER", help="folder of the programs")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for results.json, record.md and the logs")
    parser.add_argument("--quick", action="store_true", help="within 10 minutes: fewer sizes, slots and rounds")
    twin = "without a GPU, on the kernel's twin: tests this script; measures nothing"
    parser.add_argument("--rehearse", action="store_true", help=twin)
    parser.add_argument("--device", type=int, default=0, metavar="N", help="number of the GPU (0)")
    parser.add_argument("--commit", metavar="HASH", help="what the programs were built from, if they cannot say so")
    words = "only steps with this word in their names; may be given again"
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help=words)
    parser.add_argument("--self-test", action="store_true", help="test this script's own code and nothing else")
    options = parser.parse_args(argv)
    if not options.self_test and not (options.bin and options.out):
        parser.error("--bin and --out are needed")
    return options


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    options = arguments(argv)
    if options.self_test:
        from . import selftest

        return selftest.main()
    options.bin, options.out = options.bin.resolve(), options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    for old in options.out.glob("*.log"):
        old.unlink()
    check = Run(options, argv)
    return check.run()


class Run:
    """One run."""

    def __init__(self, options, argv):
        self.options = options
        self.command = "ci/gpu-check " + shlex.join(argv)
        self.checks = Checks(options, options.out)
        self.figures = None

    def run(self):
        options = self.options
        seconds, kept = REHEARSAL if options.rehearse else QUICK if options.quick else FULL
        clock, began = Clock(seconds), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        built = self.built_from()
        wanted = lambda step: not options.only or any(word in step.name for word in options.only)  # noqa: E731
        last = Step("figures", 900, self.measure)
        results = run_all(filter(wanted, self.checks.steps()), clock, kept if wanted(last) else 0)
        results += run_all(filter(wanted, [last]), clock, 0)
        facts = machine.facts(options.device)
        written = {
            "rehearsal": options.rehearse,
            **({"about": goals.REHEARSAL} if options.rehearse else {}),
            "began": began,
            "seconds": round(seconds - clock.left(), 1),
            "command": self.command,
            "built": built,
            **facts,
            "steps": [result.as_json() for result in results],
            "figures": self.figures,
        }
        self.write("results.json", json.dumps(written, indent=1, ensure_ascii=False) + "\n")
        self.tell(results, written)
        return 1 if any(result.verdict == FAILED for result in results) else 0

    def built_from(self):
        """What the checker says of itself; `--commit` where it does not know its commit."""
        told = ask([self.checks.checker, "version"])
        try:
            built = json.loads((told or "").strip().splitlines()[-1])
        except (IndexError, ValueError):
            built = {"error": "the program megaring-gpu-check could not be asked"}
        given = self.options.commit
        if given and built.get("commit") and not agree(given, built["commit"]):
            sys.exit(f"ci/gpu-check: --commit {given}, but the programs were built from {built['commit']}")
        built["commit"] = built.get("commit") or given
        return built

    def measure(self, limit):
        begun = time.monotonic()
        options, log = self.options, self.checks.log
        count = 2 if options.rehearse else 3 if options.quick else 7
        place = ["cpu", "--tiny"] if options.rehearse else [f"cuda:{options.device}"]
        peers = [sys.executable, Path(__file__).with_name("peers.py"), *place]
        measuring = Program(self.checks.command("measure"), log("measure"), self.checks.env)
        with measuring as program, Program(peers, log("torch")) as peer:
            torch = self.greeting(peer)
            wgpu = self.checks.no_wgpu is None
            alternation = Alternation(program, None if "missing" in torch else peer, options.quick, limit - 10, wgpu)
            rounds = 0
            try:
                rounds = alternation.rounds(count)
            except (Ended, OutOfTime) as error:
                alternation.note(str(error))
            series = {name: summarise(found) for name, found in alternation.series.items()}
            self.figures = {
                "rounds": rounds,
                "torch": torch,
                "wgpu": self.checks.no_wgpu or self.checks.adapter,
                "errors": alternation.errors,
                "series": series,
                "raw": alternation.series,
                "gpu_after": machine.nvidia_smi(options.device, machine.FIELDS),
            }
        own = [error for error in alternation.errors if not error.startswith("torch")]
        if own:
            raise Failed(f"{own[0]} (of {len(own)}); see measure.log")
        if not rounds:
            raise Failed("no round came to its end")
        without = f"without PyTorch: {torch.get('missing') or 'it ended'}"
        beside = f"beside PyTorch {torch['torch']}" if alternation.peer else without
        return f"{rounds} rounds, {beside}, {time.monotonic() - begun:.0f} s", {}

    @staticmethod
    def greeting(peer):
        try:
            return peer.receive(90)
        except (Ended, OutOfTime) as error:
            return {"missing": f"PyTorch did not start: {error}"}

    def tell(self, results, written):
        rehearsal = self.options.rehearse
        print()
        if self.figures:
            rows = goals.lines(self.figures["series"], rehearsal, self.checks.no_wgpu)
            print(goals.plain(rows, rehearsal) + "\n")
            record = self.options.out / "record.md"
            if rehearsal:
                # One of an earlier run must not be taken for this one's.
                record.unlink(missing_ok=True)
            else:
                self.write("record.md", self.record(rows, results, written))
        width = max((len(result.name) for result in results), default=0)
        for result in results:
            print(f"{result.name.ljust(width)}  {result.verdict:7}  {result.seconds:6.1f} s  {result.note}")
        print("\n" + (f"{goals.REHEARSAL}\n" if rehearsal else "") + counts(results))

    def record(self, rows, results, written):
        """A piece of `benches/record/`."""
        built, host = written["built"], written["host"]
        gpu = {field: (written["gpu"] or {}).get(field, "unknown") for field in machine.FIELDS}
        torch, wgpu = self.figures["torch"], self.figures["wgpu"]
        beside = f"PyTorch {torch['torch']} (CUDA {torch['cuda']})" if "torch" in torch else torch.get("missing")
        head = [
            f"# {gpu['name']}",
            "",
            f"Commit {built.get('commit') or 'unknown'}, {built.get('profile', 'unknown')} build. "
            f"Driver {gpu['driver_version']}, compute capability {gpu['compute_cap']}. "
            f"Host: {host['cpu'] or 'unknown'}, {host['processors']} processors. Beside: {beside}. "
            f"Clocks as found after the run: SM {gpu['clocks.sm']} of {gpu['clocks.max.sm']} MHz.",
            "",
            f"wgpu: {wgpu if isinstance(wgpu, str) else wgpu['name'] + ', ' + wgpu['driver'] + ' through ' + wgpu['api']}.",
            "",
            f"`{self.command}`, begun {written['began']}, {written['seconds']:.0f} s, "
            f"{self.figures['rounds']} rounds in alternation. Medians are the medians of the rounds' medians; p99 likewise.",
            "",
            goals.markdown(rows),
            "",
            "| step | verdict | |",
            "|---|---|---|",
            *[f"| {result.name} | {result.verdict} | {result.note} |" for result in results],
            "",
            f"{counts(results)}.",
        ]
        return "\n".join(head) + "\n"

    def write(self, name, text):
        (self.options.out / name).write_text(text, encoding="utf-8")


def agree(one, other):
    """Whether two hashes name one commit: either may be abbreviated, and marked as not clean."""
    one, other = one.split("-")[0], other.split("-")[0]
    return len(min(one, other, key=len)) >= 7 and (one.startswith(other) or other.startswith(one))
