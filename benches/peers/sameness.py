"""Whether two searches found the same rows, ties apart: rows whose scores float32 cannot tell from each other may change places."""

from dataclasses import dataclass


def tie(dim):
    """The difference of two scores that float32 cannot tell.

    A peer adds `dim` products in float32, each addition off by at most 2^-24 of a sum that is at most 1: errors to either side, of the two rows
    compared, stay within 4 * sqrt(dim) * 2^-24.
    """
    return 4 * dim**0.5 * 2**-24


# The reference may add in another order than megaring, in float64.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Verdict:
    """What a comparison found."""

    # Every query has the same rows, ties apart.
    same: bool
    # Queries whose rows are not in the same order, number by number.
    differing: int
    # Queries for which the peer found a row that is better by the reference: megaring would be wrong.
    better: int


def compare(ours, theirs, dim, scores):
    """Compares row numbers, a list for each query. `scores(pairs)` tells the exact scores of pairs of a query's place and a row."""
    if len(ours) != len(theirs):
        return Verdict(False, abs(len(ours) - len(theirs)), 0)
    differing = [at for at, (own, other) in enumerate(zip(ours, theirs)) if own != other]
    pairs = [(at, row) for at in differing for row in dict.fromkeys([*ours[at], *theirs[at]])]
    exact = dict(zip(pairs, scores(pairs) if pairs else []))
    same, better = True, 0
    for at in differing:
        own, other = ([exact[at, row] for row in rows] for rows in (ours[at], theirs[at]))
        best = sorted(other, reverse=True)
        distinct = len(set(theirs[at])) == len(other) == len(own)
        same = same and distinct and all(abs(a - b) <= tie(dim) for a, b in zip(own, other))
        better += distinct and any(b > a + ROUNDING for a, b in zip(own, best))
    return Verdict(same, len(differing), better)
