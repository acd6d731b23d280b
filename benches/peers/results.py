"""What is told: a table for people, and a JSON object a line for programs."""

import json

from .rounds import summary


class Results:
    """Rows as they come. Each is printed and written at once, so that a run that is stopped has what it measured."""

    def __init__(self, file, about, tell=print):
        self._file, self._about, self._tell = file, about, tell
        self.measured = 0
        self.wrong = []

    def head(self):
        self._tell(f"{'peer':>14} {'peer':>12} {'quartiles':>23} {'megaring':>12} {'quartiles':>23} {'ratio':>7}  same rows")

    def case(self, case):
        self._tell(case)

    def row(self, case, peer, theirs, ours, same, more):
        """A peer's samples beside megaring's, in microseconds. The ratio is how many times as long the peer took."""
        (peer_us, peer_spread), (ours_us, ours_spread) = summary(theirs), summary(ours)
        ratio = peer_us / ours_us
        self.measured += 1
        self._tell(
            f"{peer:>14} {time(peer_us):>12} {spread(peer_spread):>23} {time(ours_us):>12} {spread(ours_spread):>23} "
            f"{ratio:>6.2f}x  {'yes' if same else 'NO'}"
        )
        self._write(
            case=case, peer=peer, peer_us=round(peer_us, 3), ours_us=round(ours_us, 3), ratio=round(ratio, 4), same_ids=same,
            peer_quartiles_us=peer_spread, ours_quartiles_us=ours_spread, peer_samples=len(theirs), ours_samples=len(ours), **more,
        )

    def left_out(self, case, peer, reason):
        """A peer that was not measured, and why."""
        self._tell(f"{peer:>14} left out: {reason}")
        self._write(case=case, peer=peer, peer_us=None, ours_us=None, ratio=None, same_ids=None, left_out=reason)

    def is_wrong(self, reason):
        """An answer of megaring that is not right."""
        self._tell(f"{'megaring':>14} IS WRONG: {reason}")
        self.wrong.append(reason)

    def _write(self, **fields):
        self._file.write(json.dumps({**fields, **self._about}, ensure_ascii=False) + "\n")
        self._file.flush()


def time(us):
    """Microseconds in the unit that suits them."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}" if us < 1000 * size else f"{us / size:.0f} {unit}"
    return f"{us:.3g} µs"


def spread(quartiles):
    return " to ".join(map(time, quartiles))
