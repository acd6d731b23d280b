"""The steps before the figures."""

import time

from . import machine, vulkan
from .programs import Program
from .steps import Failed, Skipped, Step, run_to_end

# MiB of device memory that may be more in use than before: other programs, and what the driver keeps.
SLACK_MIB = 64
# How long the driver may take to clear up after a killed process.
CLEAR_UP_S = 30


class Checks:
    """The steps, for one set of programs and one machine."""

    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.rehearse = options.rehearse
        self.quick = options.quick
        self.checker = options.bin / "megaring-gpu-check"
        self.megaring = options.bin / "megaring"
        # What makes Vulkan be found, and why it is not; told by the step "vulkan".
        self.env = {}
        self.no_wgpu = "it was not looked for"
        self.adapter = None

    def steps(self):
        """All of them, in order."""
        full, quick, rehearse = not self.quick and not self.rehearse, self.quick, self.rehearse
        steps = [
            Step("gpu", 60, self.gpu),
            Step("doctor", 60, self.doctor),
            *(Step(f"first look, {mode}", 90, self.first_look(mode)) for mode in MODES),
            Step("conformance", 300 if full else 150, self.conformance("persistent", self.quick)),
            Step("vulkan", 120, self.vulkan),
            Step("first look, wgpu", 90, self.by_wgpu(self.first_look("wgpu"))),
            Step("conformance, wgpu", 200 if full else 100, self.by_wgpu(self.conformance("wgpu", True))),
        ]
        if not quick:
            steps += [Step(f"conformance, {mode}", 200, self.conformance(mode, True)) for mode in ("launch", "graph")]
        slots = 300 if rehearse else 1_000_000 if quick else 10_000_000
        few = 60 if rehearse else 20_000 if quick else 200_000
        steps.append(Step(f"torture, {slots:,} slots", 100 if quick else 400, self.torture("persistent", slots)))
        steps += [Step(f"torture, {mode}, {few:,} slots", 60, self.torture(mode, few)) for mode in ("launch", "graph")]
        cycles = 4 if rehearse else 60 if quick else 200
        kills = 1 if rehearse or quick else 3
        steps += [
            Step(f"start and stop {cycles} times", 120 if quick else 300, self.cycles(cycles)),
            Step("kill -9 under load", 90 if quick else 180, self.kills(kills)),
            Step("compute-sanitizer memcheck", 120 if quick else 300, self.memcheck),
        ]
        return steps

    def gpu(self, _limit):
        if self.rehearse:
            raise Skipped("a rehearsal has no GPU")
        found = machine.facts(self.options.device)["gpu"]
        if found is None:
            raise Failed("nvidia-smi shows no such GPU")
        everything = machine.ask(["nvidia-smi", "-q", f"--id={self.options.device}"]) or ""
        self.log("nvidia-smi").write_text(everything, encoding="utf-8")
        name, driver, capability = (found[field] for field in ("name", "driver_version", "compute_cap"))
        return f"{name}, driver {driver}, compute capability {capability}", {"gpu": found}

    def doctor(self, limit):
        if not self.megaring.is_file():
            raise Skipped(f"there is no {self.megaring.name} in {self.options.bin}")
        data = self.folder / "doctor-data"
        command = [self.megaring, "doctor", "--json", "--data", data]
        with Program(command, self.log("doctor"), {"MEGARING_CUDA_DEVICE": str(self.options.device)}) as program:
            status = program.finish(limit)
            findings = program.objects()
        return doctor_verdict(findings, status, self.rehearse)

    def vulkan(self, limit):
        """Finds Vulkan for the wgpu backend. Where it is not to be had, that is said, and nothing has failed."""
        try:
            # A rehearsal takes what the system has of it, software too.
            found = vulkan.Vulkan() if self.rehearse else vulkan.find(self.options.bin, self.folder)
            told = run_to_end([self.checker, "adapters"], self.log("vulkan"), limit, found.env)
            self.adapter = vulkan.choose(told["adapters"], self.rehearse)
        except vulkan.Missing as reason:
            self.no_wgpu = f"not available: {reason}"
            raise Skipped(self.no_wgpu) from None
        self.env, self.no_wgpu = found.env, None
        adapter = self.adapter
        return f"{adapter['name']}, {adapter['driver']}, {adapter['limits']}", {"adapter": adapter, "files": found.found}

    def by_wgpu(self, run):
        """A step that needs an adapter."""

        def only_there(limit):
            if self.no_wgpu is not None:
                raise Skipped(self.no_wgpu)
            return run(limit)

        return only_there

    def first_look(self, mode):
        def run(limit):
            result = self.task(f"first-look-{mode}", limit, "small", "--mode", mode)
            return f"{result['answers']} answers", {"result": result}

        return run

    def conformance(self, mode, quick):
        def run(limit):
            few = ["--quick"] if quick else []
            result = self.task(f"conformance-{mode}", limit, "conformance", "--mode", mode, *few)
            return f"{result['answers']:,} answers in {result['checks']} checks", {"result": result}

        return run

    def torture(self, mode, slots):
        def run(limit):
            threads = 2 if self.rehearse else 8
            arguments = ["--mode", mode, "--slots", slots, "--threads", threads]
            result = self.task(f"torture-{mode}", limit, "torture", *arguments)
            note = f"{result['checked']:,} answers as they must be, {result['slots_per_second']:,.0f} slots a second"
            return note, {"result": result}

        return run

    def cycles(self, count):
        def run(limit):
            used = []
            begun = time.monotonic()
            with Program(self.command("cycles", count, "--checkpoints"), self.log("cycles")) as program:
                while True:
                    found = program.receive(limit - (time.monotonic() - begun))
                    if "checkpoint" not in found:
                        break
                    used.append(machine.memory_used(self.options.device))
                    program.send({})
                status = program.finish(30)
            if status != 0 or found.get("ok") is not True:
                raise Failed(f"{found.get('error', 'it holds more than after the third cycle')}; see cycles.log")
            growth = memory_growth(used)
            start, stop = (found[part]["p50_ns"] / 1e6 for part in ("start", "stop"))
            note = f"a start takes {start:,.0f} ms, a stop {stop:,.0f} ms"
            note += "" if growth is None else f"; {growth:+} MiB of device memory"
            return note, {"result": found, "memory_mib": used}

        return run

    def kills(self, rounds):
        def run(limit):
            end = time.monotonic() + limit
            told = []
            for _ in range(rounds):
                before = machine.memory_used(self.options.device)
                with Program(self.command("hold"), self.log("kill")) as program:
                    found = program.receive(end - time.monotonic())
                    if not found.get("under_load"):
                        raise Failed(f"it was never under load: {found.get('error') or found.get('failure')}")
                    # Long enough that jobs are under way whatever the machine does; nothing depends on how long.
                    time.sleep(0.5)
                    if not program.is_running:
                        raise Failed("it ended by itself; see kill.log")
                    status = program.kill_hard()
                cleared = clear_up(before, lambda: machine.memory_used(self.options.device))
                begun = time.monotonic()
                self.task("after-kill", end - time.monotonic(), "small", "--mode", "persistent")
                told.append({"status": status, "answers": found["answers"], "memory_mib": [before, cleared]})
                told[-1]["clean_start_s"] = round(time.monotonic() - begun, 3)
            answers = sum(one["answers"] for one in told)
            return f"{len(told)} clean starts, after {answers:,} answers", {"kills": told}

        return run

    def memcheck(self, limit):
        if self.rehearse:
            raise Skipped("a rehearsal has no GPU")
        tool = machine.compute_sanitizer()
        if tool is None:
            raise Skipped("compute-sanitizer is not installed")
        command = [tool, "--tool", "memcheck", "--error-exitcode", "86", *self.command("small", "--mode", "launch")]
        with Program(command, self.log("memcheck")) as program:
            status = program.finish(limit)
            lines = list(program.lines)
        return memcheck_verdict(lines, program.objects(), status)

    def task(self, log, limit, *arguments):
        """What a subcommand of the checker that runs to its end says last."""
        return run_to_end(self.command(*arguments), self.log(log), limit, self.env)

    def command(self, *arguments):
        common = ["--rehearse"] if self.rehearse else ["--device", self.options.device]
        return [self.checker, *arguments, *common]

    def log(self, name):
        return self.folder / f"{name}.log"


MODES = ("persistent", "launch", "graph")


def doctor_verdict(findings, status, rehearse):
    """Whether doctor found a CUDA backend that works."""
    problems = [found for found in findings if found.get("state") == "problem"]
    if status != 0 or problems or not findings:
        raise Failed("; ".join(f"{found['check']}: {found['found']}" for found in problems) or "it told nothing")
    cuda = next((found for found in findings if found.get("check") == "backend cuda"), {})
    if rehearse:
        return "of the machine, not of its GPU", {"findings": findings}
    if cuda.get("state") != "ok":
        raise Failed(f"no CUDA backend: {cuda.get('found', 'doctor does not speak of it')}")
    return cuda["found"], {"findings": findings}


def memory_growth(used):
    """MiB more in use at the last checkpoint than at the first, where anybody could tell; too many are a failure."""
    if len(used) < 2 or None in used:
        return None
    growth = used[-1] - used[0]
    if growth > SLACK_MIB:
        raise Failed(f"{growth} MiB of device memory were not given back")
    return growth


def clear_up(before, used, seconds=CLEAR_UP_S):
    """Waits until no more memory is in use than before a process that was killed; answers what is."""
    if before is None:
        return None
    end = time.monotonic() + seconds
    while True:
        now = used()
        if now is None or now <= before + SLACK_MIB:
            return now
        if time.monotonic() > end:
            left = now - before
            raise Failed(f"{left} MiB of device memory are still in use {seconds} s after the process was killed")
        time.sleep(0.2)


def memcheck_verdict(lines, objects, status):
    """What compute-sanitizer says."""
    text = "\n".join(lines)
    if "Device not supported" in text or "is not supported" in text:
        raise Skipped("compute-sanitizer does not support this machine")
    summaries = [line for line in lines if "ERROR SUMMARY" in line]
    if not summaries:
        raise Failed(f"compute-sanitizer told nothing (exit status {status}); see memcheck.log")
    if status != 0 or not all("ERROR SUMMARY: 0 errors" in line for line in summaries):
        raise Failed(f"{summaries[-1].lstrip('= ')}; see memcheck.log")
    if not objects or objects[-1].get("ok") is not True:
        raise Failed("the program under it did not say that all was well; see memcheck.log")
    return "0 errors", {"result": objects[-1]}
