"""Imports a matrix of files that pyarrow, Polars, pandas, DuckDB and numpy write, and compares what comes out again.

Usage: python imports MEGARING [unittest's options]. Each file is a test: it is written, imported into a data folder of
its own and exported as an Arrow file, whose rows must be those that were written; or it must be refused, for the reason
that is expected. Further columns are also shown, and filtered by where the case says which rows a condition passes.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import pyarrow as pa

import of_numpy
import of_pyarrow
import of_tables

MEGARING = Path(sys.argv.pop(1)).resolve()


class Imports(unittest.TestCase):
    maxDiff = None

    def megaring(self, folder, *arguments):
        # GPUs take longer to start than most commands take.
        environment = {
            **os.environ,
            "MEGARING_DATA": str(folder / "data"),
            "MEGARING_CUDA": "off",
            "MEGARING_WGPU": "off",
        }
        command = [MEGARING, "--json", *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )

    def check(self, case):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / case.name
            case.write(path)
            ran = self.megaring(folder, "corpus", "import", "given", str(path), *case.options)
            self.assertNotIn("panicked", ran.stderr)
            if case.refused:
                self.assertEqual(ran.returncode, 1, ran)
                for part in case.refused:
                    self.assertIn(part, ran.stdout + ran.stderr)
                return
            self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
            values = np.asarray(case.values, dtype=np.float32)
            imported = json.loads(ran.stdout)
            self.assertEqual((imported["rows"], imported["dim"]), values.shape)
            out = folder / "exported.arrow"
            ran = self.megaring(folder, "corpus", "export", "given", "--out", str(out))
            self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
            with pa.ipc.open_file(out) as reader:
                self.compare(case, values, reader.read_all())
            if case.further:
                self.fetch(folder, case, len(values))
            for condition, rows in case.passing.items():
                ran = self.megaring(folder, "search", "given", "--row", "0", "--k", "100", "--filter", condition)
                self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
                hits = json.loads(ran.stdout.splitlines()[0])["hits"]
                self.assertEqual(sorted(hit["row"] for hit in hits), rows, condition)

    def fetch(self, folder, case, rows):
        numbers = ",".join(str(row) for row in range(rows))
        ran = self.megaring(folder, "corpus", "fetch", "given", "--row", numbers, "--columns", "*")
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        shown = [json.loads(line) for line in ran.stdout.splitlines()]
        self.assertEqual(len(shown), rows)
        for row in shown:
            self.assertLessEqual(set(case.further), set(row))

    def compare(self, case, values, found):
        rows = len(values)
        embedding = found["embedding"].combine_chunks()
        np.testing.assert_array_equal(np.asarray(embedding.flatten()).reshape(values.shape), values)
        self.assertEqual(found["memory_id"].to_pylist(), list(range(rows)) if case.ids is None else case.ids)
        self.assertEqual(found["title"].to_pylist(), [""] * rows if case.titles is None else case.titles)
        further = set(found.column_names) - {"memory_id", "title", "embedding"}
        self.assertEqual(further, set(case.further))
        for name, wanted in case.further.items():
            column = found[name].to_pylist()
            if callable(wanted):
                self.assertTrue(wanted(column), column)
            else:
                self.assertEqual(column, wanted, name)


def add(case):
    name = "test_" + case.name
    assert not hasattr(Imports, name), f"{name} is there twice"
    setattr(Imports, name, lambda self: self.check(case))


for writer in [of_pyarrow, of_tables, of_numpy]:
    for each in writer.cases():
        add(each)

unittest.main()
