"""Those who are measured: each is a program that answers lines, and is left out from its first failure on."""

import os
import sys
from pathlib import Path

from gpu_check.programs import Ended, OutOfTime, Program

# Seconds for an answer that should come at once, for one that makes or loads a million rows, and for one measured call beyond what it may last.
SOON, LOADED, SLACK = 120, 900, 120


class LeftOut(Exception):
    """A party cannot go on, and why."""


class Party:
    """A program with a name."""

    def __init__(self, name, command, log, threads):
        self.name = name
        # numpy's BLAS, faiss and torch read one of these when they start.
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        self._program = Program(command, log, {**dict.fromkeys(names, str(threads)), "PYTHONDONTWRITEBYTECODE": "1"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Asked first: megaring's program then removes its corpora itself.
        try:
            self._program.finish(20)
        except OutOfTime:
            pass
        self._program.__exit__()

    def ask(self, message, limit=SOON):
        """Its answer to one line."""
        try:
            self._program.send(message)
            answer = self._program.receive(limit)
        except (Ended, OutOfTime) as error:
            raise LeftOut(str(error)) from error
        if "error" in answer:
            raise LeftOut(answer["error"])
        return answer


def script(name, *arguments):
    """The command of a peer that is a script beside this file."""
    return [sys.executable, Path(__file__).with_name(f"{name}_peer.py"), *arguments]


def processors():
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
