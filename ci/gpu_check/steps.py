"""Steps with verdicts: a failure does not stop the ones behind it."""

import time
import traceback
from dataclasses import dataclass, field

from .programs import Ended, OutOfTime, Program, ending

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Failed(Exception):
    """A step's failure, in words."""


class Skipped(Exception):
    """Why a step cannot run here."""


@dataclass
class Result:
    """How a step went."""

    name: str
    verdict: str
    note: str = ""
    seconds: float = 0.0
    data: dict = field(default_factory=dict)

    def as_json(self):
        told = {"step": self.name, "verdict": self.verdict, "note": self.note, "seconds": round(self.seconds, 3)}
        return {**told, **self.data}


@dataclass
class Step:
    """`run` answers (a note, an object for the results) or raises `Failed` or `Skipped`. `limit` is in seconds."""

    name: str
    limit: float
    run: object


class Clock:
    """The time that there is for everything."""

    def __init__(self, seconds, now=time.monotonic):
        self._now = now
        self._end = now() + seconds

    def left(self):
        return self._end - self._now()


def run_all(steps, clock, reserved, told=print):
    """Runs steps in order, each within its limit and within what `reserved` seconds for later ones leave of the clock."""
    results = []
    for step in steps:
        limit = min(step.limit, clock.left() - reserved)
        begun = time.monotonic()
        if limit <= 1:
            result = Result(step.name, SKIPPED, "no time was left for it")
        else:
            told(f"=== {step.name}", flush=True)
            result = run_one(step, limit)
        result.seconds = time.monotonic() - begun
        told(f"{step.name}: {result.verdict}{': ' + result.note if result.note else ''}", flush=True)
        results.append(result)
    return results


def run_one(step, limit):
    """One step; whatever goes wrong in it is its failure."""
    try:
        note, data = step.run(limit)
        return Result(step.name, PASSED, note, data=data)
    except Skipped as reason:
        return Result(step.name, SKIPPED, str(reason))
    except (Failed, OutOfTime, Ended) as reason:
        return Result(step.name, FAILED, str(reason), data=getattr(reason, "data", {}))
    except Exception as error:  # A mistake of this script must not hide what the other steps find.
        traceback.print_exc()
        return Result(step.name, FAILED, f"{type(error).__name__}: {error}")


def run_to_end(command, log, limit, env=None):
    """Runs a program to its end; the object that it printed last, which must say `"ok": true`."""
    with Program(command, log, env) as program:
        status = program.finish(limit)
        objects = program.objects()
    last = objects[-1] if objects else {}
    if status != 0 or last.get("ok") is not True:
        failure = Failed(what_failed(last, status) + f"; see {log.name}")
        failure.data = {"result": last}
        raise failure
    return last


def what_failed(last, status):
    """A program's last object in words."""
    for key in ("error", "failure", "failures", "failed"):
        if last.get(key):
            found = last[key]
            return f"{found[0]} (and {len(found) - 1} more)" if isinstance(found, list) and len(found) > 1 else str(
                found[0] if isinstance(found, list) else found
            )
    if status == 0:
        return "it did not say that all was well"
    return f"it ended with {ending(status)}"


def counts(results):
    """The last line: N passed, N failed, N skipped."""
    of = {verdict: sum(result.verdict == verdict for result in results) for verdict in (PASSED, FAILED, SKIPPED)}
    return f"{of[PASSED]} passed, {of[FAILED]} failed, {of[SKIPPED]} skipped"
