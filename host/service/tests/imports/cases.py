"""What a file of the matrix is to become, and the rows that nearly all of them hold."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np

ROWS, DIM = 10, 4
# Multiples of 1/4 that float16 holds, too.
VECTORS = ((np.arange(ROWS * DIM) - 20) / 4).astype(np.float32).reshape(ROWS, DIM)
WHOLE = (np.arange(ROWS * DIM) - 20).reshape(ROWS, DIM)
IDS = [1000 + row for row in range(ROWS)]
TITLES = [f"title {row % 4} ü" if row % 5 else "" for row in range(ROWS)]
# None is a title that is not there, which is the empty one.
SPARSE = [None if row % 3 == 0 else title for row, title in enumerate(TITLES)]
BATCH = 4


@dataclass
class Case:
    """A file and what becomes of it: rows of these values, or a refusal that says all of `refused`."""

    name: str
    write: Callable[[Path], Any]
    values: Any = field(default_factory=lambda: VECTORS)
    # None: the numbers of the rows.
    ids: Any = None
    # None: all empty.
    titles: Any = None
    # Further columns, by name; a value may be a function that is given what was exported.
    further: dict = field(default_factory=dict)
    # The rows that pass conditions.
    passing: dict = field(default_factory=dict)
    refused: tuple = ()
    options: tuple = ()


def vectors_of(dtype):
    """Values that this type of numpy's holds, all of them different."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return VECTORS.astype(dtype)
    return (WHOLE + 20 if kind == "u" else WHOLE).astype(dtype)


def empty_for_none(titles):
    return [title or "" for title in titles]
