"""Tests of this script by itself: `python3 benches/peers --self-test`. Whoever is measured is played by a small program in Python."""

import contextlib
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

from . import encoding, hyperscan_peer, main as command_line, results, rounds, sameness, searching
from .party import LeftOut, Party
from .rounds import Plan

PLAN = Plan(seconds=0, longest=20, pause=0)

# Answers searches with the rows that its first argument lists, in the time that its second tells, and breaks in the call that its third numbers.
PLAYER = """
import json, sys
ids, us, breaks, calls = json.loads(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), 0
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "search":
        calls += 1
        if calls == breaks: sys.exit(3)
        one = [ids] * asked["count"]
        print(json.dumps({"us": [us] * len(asked["firsts"]), "ids": [one] * len(asked["firsts"]) if asked["ids"] else []}), flush=True)
    elif asked["do"] == "scores":
        print(json.dumps({"scores": [1 - row / 10 for _, row in asked["pairs"]]}), flush=True)
    else:
        print(json.dumps({"error": "not asked for"}), flush=True)
"""


class Told:
    """Results that are kept."""

    def __init__(self):
        self.file, self.said = io.StringIO(), []
        self.results = results.Results(self.file, {"threads": 2}, self.said.append)

    def lines(self):
        return [json.loads(line) for line in self.file.getvalue().splitlines()]


class Rounds(unittest.TestCase):
    def test_everyone_has_the_same_inputs_in_turn(self):
        asked = []

        def ask(name, begin, calls):
            asked.append((name, begin, calls))
            return [1e5] * calls

        samples, left_out = rounds.alternate({"a": 1e5, "b": 1e5, "c": 1e5}, ask, PLAN)
        self.assertEqual([name for name, _, _ in asked], list("abcbcacab"))
        self.assertEqual([begin for _, begin, _ in asked], [0, 0, 0, 2, 2, 2, 4, 4, 4])
        self.assertEqual(({name: len(taken) for name, taken in samples.items()}, left_out), ({"a": 3, "b": 3, "c": 3}, {}))

    def test_the_first_calls_of_a_turn_are_no_samples_unless_they_are_long(self):
        ask = lambda name, begin, calls: [9e9] * (calls // 2) + [1.0] * (calls - calls // 2) if calls > 1 else [9e9]  # noqa: E731
        self.assertEqual(set(rounds.alternate({"a": 1e4}, ask, PLAN)[0]["a"]), {1.0})
        self.assertIn(9e9, rounds.alternate({"a": 1e6}, ask, PLAN)[0]["a"])

    def test_rounds_go_on_for_their_time(self):
        now = iter(range(1000))
        plan = Plan(seconds=4, longest=20, pause=0)
        samples, _ = rounds.alternate({"a": 1e6}, lambda *_: [1.0], plan, clock=lambda: next(now), sleep=lambda _: None)
        # Three rounds without a look at the clock, and four while it shows 1 to 4.
        self.assertEqual(len(samples["a"]), 7)

    def test_whoever_fails_is_left_out_and_the_others_go_on(self):
        def ask(name, begin, calls):
            if name == "b" and begin:
                raise LeftOut("it broke")
            return [1.0] * calls

        samples, left_out = rounds.alternate({"a": 1e6, "b": 1e6, "c": 1e6}, ask, PLAN)
        self.assertEqual((set(samples), left_out), ({"a", "c"}, {"b": "it broke"}))
        self.assertEqual(len(samples["c"]), 3)

    def test_short_calls_are_many(self):
        self.assertEqual([rounds.calls(us) for us in (0, 10, 1e4, 3e4, 1e9)], [1000, 1000, 10, 3, 1])
        self.assertEqual(rounds.summary([4.0]), (4.0, [4.0, 4.0]))
        self.assertEqual(rounds.summary([3.0, 1.0, 2.0, 5.0, 4.0]), (3.0, [2.0, 4.0]))


class Sameness(unittest.TestCase):
    def compare(self, ours, theirs, exact):
        return sameness.compare([ours], [theirs], 384, lambda pairs: [exact[row] for _, row in pairs])

    def test_the_same_rows_need_no_scores(self):
        self.assertEqual(self.compare([1, 2], [1, 2], {}), sameness.Verdict(True, 0, 0))

    def test_rows_that_float32_cannot_tell_apart_may_change_places(self):
        exact = {1: 0.5 + 1e-7, 2: 0.5, 3: 0.5 - 1e-7}
        self.assertEqual(self.compare([1, 2], [2, 1], exact), sameness.Verdict(True, 1, 0))
        self.assertEqual(self.compare([1, 2], [1, 3], exact), sameness.Verdict(True, 1, 0))

    def test_other_rows_are_not_the_same(self):
        exact = {1: 0.5, 2: 0.4, 3: 0.3}
        self.assertEqual(self.compare([1, 2], [1, 3], exact), sameness.Verdict(False, 1, 0))
        self.assertFalse(self.compare([1, 2], [2, 1], exact).same, "in the wrong order")
        self.assertFalse(self.compare([1, 2], [1, 1], exact).same, "one row twice")
        self.assertFalse(self.compare([1, 2], [1], exact).same, "too few")
        self.assertFalse(sameness.compare([[1]], [], 384, None).same, "no answer")

    def test_a_better_row_of_the_peer_is_our_mistake(self):
        self.assertEqual(self.compare([1, 3], [1, 2], {1: 0.5, 2: 0.4, 3: 0.3}), sameness.Verdict(False, 1, 1))
        # Also where float32 could not tell.
        self.assertEqual(self.compare([1, 3], [1, 2], {1: 0.5, 2: 0.4, 3: 0.4 - 1e-8}), sameness.Verdict(True, 1, 1))


class Cases(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log, self.told = Path(folder.name) / "log", Told()

    def run_cases(self, parties, searches=((1, 10), (16, 3)), plan=PLAN):
        with contextlib.ExitStack() as stack:
            for name, (ids, us, breaks) in parties.items():
                command = [sys.executable, "-c", PLAYER, json.dumps(ids), str(us), str(breaks)]
                parties[name] = stack.enter_context(Party(name, command, self.log, 2))
            data = searching.Data("generated", 1, searches)
            searching.Cases(data, dict(parties), dict.fromkeys(parties, "1"), 64, plan, self.told.results).run()
        return self.told.lines()

    def test_ratios_are_the_peers_time_by_ours(self):
        lines = self.run_cases({"megaring": ([1, 2], 10, 0), "faiss": ([1, 2], 25, 0)})
        self.assertEqual([line["case"] for line in lines], ["search, generated 1 x 384, 1 query, top 10", "search, generated 1 x 384, 16 queries, top 3"])
        for line in lines:
            told = [line[key] for key in ("peer", "peer_us", "ours_us", "ratio", "same_ids", "threads")]
            self.assertEqual(told, ["faiss", 25, 10, 2.5, True, 2])

    def test_other_rows_are_told_and_ours_judged(self):
        self.assertFalse(self.run_cases({"megaring": ([1, 2], 1, 0), "faiss": ([1, 5], 1, 0)}, ((1, 10),))[0]["same_ids"])
        self.assertEqual(self.told.results.wrong, [])
        self.run_cases({"megaring": ([1, 5], 1, 0), "faiss": ([1, 2], 1, 0)}, ((1, 10),))
        self.assertIn("better rows", self.told.results.wrong[0])

    def test_a_peer_that_breaks_is_left_out_from_then_on(self):
        lines = self.run_cases({"megaring": ([1], 1e6, 0), "faiss": ([1], 1e6, 4), "numpy": ([1], 1e6, 0)})
        left_out = [line for line in lines if "left_out" in line]
        self.assertEqual([(line["peer"], line["ratio"]) for line in left_out], [("faiss", None)])
        self.assertIn("exit status 3", left_out[0]["left_out"])
        self.assertEqual([line["peer"] for line in lines if line["ratio"]], ["numpy", "numpy"])

    def test_without_ours_nothing_is_measured(self):
        lines = self.run_cases({"megaring": ([1], 1, 3), "faiss": ([1], 1, 0)})
        self.assertEqual(len(lines), 1)
        self.assertIn("megaring could not go on", lines[0]["left_out"])
        self.assertEqual(self.told.results.measured, 0)

    def test_what_would_take_minutes_is_left_out(self):
        plan = Plan(seconds=0, longest=2, pause=0)
        lines = self.run_cases({"megaring": ([1], 1, 0), "slow": ([1], 1e6, 0), "slower": ([1], 3e6, 0)}, plan=plan)
        why = {(line["case"], line["peer"]): line["left_out"] for line in lines if "left_out" in line}
        self.assertEqual(why["search, generated 1 x 384, 1 query, top 10", "slower"], "it takes 3 s a call, more than 2 s")
        self.assertEqual(why["search, generated 1 x 384, 16 queries, top 3", "slow"], "it would take up to 16 s a call, more than 6 s")
        self.assertEqual([line["peer"] for line in lines if line["ratio"]], ["slow"])

    def test_what_has_no_room_is_left_out(self):
        options = SimpleNamespace(peer=["numpy"], quick=True, tiny=False, data=Path(self.log).parent)
        with self.assertRaisesRegex(LeftOut, "GiB"):
            searching.Searching(options, PLAN, self.told.results).enough_room(searching.Data("generated", 1 << 40, ()), ["numpy"])


class Texts(unittest.TestCase):
    def test_texts_are_shared_out_in_order(self):
        texts = [b"a" * size for size in (5, 1, 1, 1, 8, 0, 2)]
        for count in (1, 2, 3, 7, 9):
            shares = hyperscan_peer.parts(texts, count)
            self.assertEqual((len(shares), [text for share in shares for text in share]), (count, texts))
        self.assertEqual([sum(map(len, share)) for share in hyperscan_peer.parts(texts, 2)], [16, 2])

    def test_texts_are_read_as_they_were_written(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "texts-0").write_bytes("aüb".encode())
            (Path(folder) / "offsets-0").write_bytes(b"".join(at.to_bytes(8, "little") for at in (0, 1, 1, 4)))
            self.assertEqual(hyperscan_peer.read_texts(folder, 0), [b"a", b"", "üb".encode()])

    def test_patterns_have_no_special_characters(self):
        self.assertEqual(hyperscan_peer.escaped("a.\u212a"), b"\\x61\\x2e\\xe2\\x84\\xaa")

    def test_other_masks_are_counted_by_memory(self):
        ours = bytes(48)
        self.assertEqual(encoding.differing([ours, ours], [ours, bytes(21) + b"\1" + bytes(26)]), 1)


class CommandLine(unittest.TestCase):
    def test_where_nothing_could_be_measured_the_status_is_1(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
            # Python ends at once: it has no such option.
            line = ["--program", sys.executable, "--folder", folder, "--tiny", "--peer", "numpy", "--left-out", "faiss=no wheel"]
            status = command_line.main(line)
            lines = [json.loads(line) for line in (Path(folder) / "peers.jsonl").read_text().splitlines()]
        self.assertEqual(status, 1)
        self.assertIn("faiss left out: no wheel", said.getvalue())
        self.assertEqual({line["peer"] for line in lines}, {"faiss", "aho-corasick", "numpy"})
        self.assertTrue(all(line["left_out"] for line in lines))

    def test_a_file_that_cannot_be_written_is_told(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as said:
            out = str(Path(folder) / "no" / "such")
            self.assertEqual(command_line.main(["--program", "a", "--folder", folder, "--out", out]), 1)
        self.assertIn("no/such", said.getvalue())

    def test_times_are_in_the_unit_that_suits_them(self):
        self.assertEqual([results.time(us) for us in (1.234, 999, 1500, 2.5e6)], ["1.23 µs", "999 µs", "1.5 ms", "2.5 s"])


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1
