"""Measuring in alternation: in each round every party has a turn, so that what the machine does meanwhile meets all of them alike."""

import statistics
import time
from dataclasses import dataclass

from .party import LeftOut


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    # Seconds of one case for each party; the rounds stop behind it, but never before the third.
    seconds: float
    # A case that would last longer than this many seconds a call is left out.
    longest: float
    # Seconds between turns: threads of some libraries spin for 30 ms after their work.
    pause: float = 0.05
    fewest: int = 3
    most: int = 25


# A turn is measured for about this long, behind as many calls to warm up, and each has at most so many: threads that slept may wake on one
# processor and be spread over all only tens of milliseconds later.
TURN_US, MOST_CALLS = 100_000, 1_000
# A call that is longer than this is its own warm-up.
WARM_UP_US = 200_000


def calls(us):
    """Calls of one turn for calls that take so long."""
    return max(1, min(MOST_CALLS, int(TURN_US / max(us, 1))))


def alternate(first, ask, plan, clock=time.monotonic, sleep=time.sleep):
    """Samples in microseconds by party, and why those that did not come to the end were left out.

    `first` tells about how long a call of each takes; `ask(name, begin, count)` is `count` calls with the inputs from `begin` on, and answers
    what each took. In one round all parties get the same inputs, in the next round others.
    """
    names, begun, begin = list(first), clock(), 0
    samples, left_out = {name: [] for name in names}, {}
    for turn in range(plan.most):
        if turn >= plan.fewest and clock() - begun > plan.seconds * len(names):
            break
        order = names[turn % len(names):] + names[: turn % len(names)] if names else []
        for name in order:
            sleep(plan.pause)
            warm = 0 if first[name] > WARM_UP_US else calls(first[name])
            try:
                samples[name] += ask(name, begin, warm + calls(first[name]))[warm:]
            except LeftOut as error:
                left_out[name] = str(error)
                names.remove(name)
        begin += max((2 * calls(first[name]) for name in names), default=0)
    return {name: samples[name] for name in names}, left_out


def summary(samples):
    """Median and quartiles."""
    if len(samples) == 1:
        return samples[0], [samples[0], samples[0]]
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return middle, [round(low, 3), round(high, 3)]
