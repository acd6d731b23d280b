"""Tests of this script by itself: `ci/gpu-check --self-test`. The programs that it runs are played by small ones in Python."""

import contextlib
import io
import json
import os
import stat
import sys
import tempfile
import time
import unittest
from pathlib import Path

from . import checks, figures, goals, steps, vulkan
from .main import Run, agree, arguments, main as run_main
from .programs import Ended, OutOfTime, Program, as_object, ending
from .steps import FAILED, PASSED, SKIPPED, Clock, Failed, Skipped, Step


def python(code):
    return [sys.executable, "-c", code]


class Programs(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.log = Path(self.folder.name) / "a.log"

    def tearDown(self):
        self.folder.cleanup()

    def test_an_object_is_told_from_other_lines(self):
        self.assertEqual(as_object('{"a": 1}'), {"a": 1})
        for line in ("", "a", "[1]", '{"a"', "1"):
            self.assertIsNone(as_object(line), line)

    def test_a_program_answers_lines_and_its_output_is_logged(self):
        code = (
            "import sys\nprint('words')\nfor line in sys.stdin: print('{\"got\": ' + line.strip() + '}', flush=True)\n"
            "print('out', file=sys.stderr)"
        )
        with Program(python(code), self.log) as program:
            for number in range(3):
                program.send({"n": number})
                self.assertEqual(program.receive(20), {"got": {"n": number}})
            self.assertEqual(program.finish(20), 0)
        self.assertIn('{"got": {"n": 2}}', self.log.read_text())
        self.assertIn("out", self.log.read_text())

    def test_a_program_that_takes_too_long_is_killed_with_its_children(self):
        code = "import os, time\nos.fork()\nos.write(1, b'{\"pid\": %d}\\n' % os.getpid())\ntime.sleep(600)"
        with Program(python(code), self.log) as program:
            pids = {program.receive(20)["pid"], program.receive(20)["pid"]}
            self.assertEqual(len(pids), 2)
            with self.assertRaises(OutOfTime):
                program.receive(0.05)
            with self.assertRaises(OutOfTime):
                program.finish(0.05)
        for pid in pids:
            self.assertTrue(is_gone(pid), pid)

    def test_a_program_that_ends_early_is_no_endless_wait(self):
        with Program(python("raise SystemExit(3)"), self.log) as program:
            with self.assertRaisesRegex(Ended, "exit status 3"):
                program.receive(20)
            with self.assertRaises(Ended):
                program.receive(20)

    def test_kill_9_is_seen(self):
        with Program(python("import time\nprint('{}', flush=True)\ntime.sleep(600)"), self.log) as program:
            program.receive(20)
            self.assertTrue(program.is_running)
            self.assertEqual(ending(program.kill_hard()), "signal SIGKILL")
            self.assertFalse(program.is_running)

    def test_a_result_must_say_that_all_is_well(self):
        well = steps.run_to_end(python("print('{\"ok\": true, \"n\": 1}')"), self.log, 20)
        self.assertEqual(well["n"], 1)
        for code, words in (
            ("print('{\"ok\": false, \"failed\": [\"nop\"]}')", "nop"),
            ("print('{\"ok\": true}'); raise SystemExit(1)", "exit status 1"),
            ("print('nothing')", "did not say"),
            ("print('{\"ok\": false, \"error\": \"no GPU\"}'); raise SystemExit(1)", "no GPU"),
            ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ):
            with self.assertRaisesRegex(Failed, words):
                steps.run_to_end(python(code), self.log, 20)


def is_gone(pid):
    """Whether a process has ended, be it that nobody has asked for its status."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


class Verdicts(unittest.TestCase):
    def test_a_failing_step_does_not_stop_the_others(self):
        def raises(error):
            def run(_limit):
                raise error

            return run

        asked = [
            Step("breaks", 9, raises(Failed("it broke"))),
            Step("is wrong", 9, raises(KeyError("x"))),
            Step("hangs", 9, raises(OutOfTime("late"))),
            Step("cannot", 9, raises(Skipped("no tool"))),
            Step("holds", 9, lambda limit: ("fine", {"limit": limit})),
        ]
        with contextlib.redirect_stderr(io.StringIO()):
            results = steps.run_all(asked, Clock(100), 0, told=lambda *_, **__: None)
        self.assertEqual([result.verdict for result in results], [FAILED, FAILED, FAILED, SKIPPED, PASSED])
        self.assertEqual(steps.counts(results), "1 passed, 3 failed, 1 skipped")
        self.assertEqual(results[4].as_json()["limit"], 9)

    def test_later_steps_keep_their_time(self):
        now = [0.0]
        clock = Clock(100, now=lambda: now[0])
        limits = []
        step = Step("a", 60, lambda limit: (limits.append(limit), {}))
        steps.run_all([step], clock, 70, told=lambda *_, **__: None)
        now[0] = 29.5
        late = steps.run_all([step], clock, 70, told=lambda *_, **__: None)
        self.assertEqual(limits, [30])
        self.assertEqual(late[0].verdict, SKIPPED)

    def test_doctor_must_find_a_working_gpu(self):
        good = [{"check": "backend cuda", "state": "ok", "found": "running on device 0"}, {"healthy": True}]
        self.assertEqual(checks.doctor_verdict(good, 0, False)[0], "running on device 0")
        absent = [{"check": "backend cuda", "state": "note", "found": "no driver"}]
        checks.doctor_verdict(absent, 0, True)
        for findings, status in ((absent, 0), (good, 1), ([], 0), ([{"check": "isa", "state": "ok", "found": ""}], 0)):
            with self.assertRaises(Failed):
                checks.doctor_verdict(findings, status, False)
        with self.assertRaisesRegex(Failed, "ring: slow"):
            checks.doctor_verdict([*good, {"check": "ring", "state": "problem", "found": "slow"}], 1, True)

    def test_memory_that_is_not_given_back_is_a_failure(self):
        self.assertEqual(checks.memory_growth([700, 700 + checks.SLACK_MIB]), checks.SLACK_MIB)
        self.assertEqual(checks.memory_growth([700, 690]), -10)
        self.assertIsNone(checks.memory_growth([700, None]))
        self.assertIsNone(checks.memory_growth([700]))
        with self.assertRaises(Failed):
            checks.memory_growth([700, 701 + checks.SLACK_MIB])
        used = iter([900, 400, 300])
        self.assertEqual(checks.clear_up(300, lambda: next(used), 20), 300)
        self.assertIsNone(checks.clear_up(None, lambda: 900))
        with self.assertRaisesRegex(Failed, "600 MiB"):
            checks.clear_up(300, lambda: 900, 0.01)

    def test_memcheck_must_say_so(self):
        clean = ["========= COMPUTE-SANITIZER", '{"ok": true}', "========= ERROR SUMMARY: 0 errors"]
        self.assertEqual(checks.memcheck_verdict(clean, [{"ok": True}], 0)[0], "0 errors")
        for lines, objects, status in (
            (["========= ERROR SUMMARY: 2 errors"], [{"ok": True}], 86),
            (["========= ERROR SUMMARY: 2 errors"], [{"ok": True}], 0),
            (clean, [{"ok": True}], 1),
            (clean, [{"ok": False}], 0),
            (clean, [], 0),
            (["nothing"], [{"ok": True}], 0),
            (["========= ERROR SUMMARY: 10 errors"], [{"ok": True}], 0),
        ):
            with self.assertRaises(Failed):
                checks.memcheck_verdict(lines, objects, status)
        with self.assertRaises(Skipped):
            checks.memcheck_verdict(["========= Error: Device not supported"], [], 1)

    def test_hashes_of_one_commit_agree(self):
        for one, other, equal in (
            ("0123456789abcdef", "0123456", True),
            ("0123456-dirty", "0123456789", True),
            ("0123456", "0123457", False),
            ("0123", "0123456", False),
        ):
            self.assertEqual(agree(one, other), equal, (one, other))


def summary(p50, p99=None, count=10):
    return {"count": count, "min_ns": p50, "p50_ns": p50, "p99_ns": p99 or p50, "max_ns": p50, "mean_ns": p50}


class Figures(unittest.TestCase):
    def test_medians_are_of_rounds(self):
        rounds = [{"case": "nop", "seen": summary(value, 10 * value)} for value in (3, 1, 8)]
        seen = figures.summarise(rounds)["seen"]
        self.assertEqual((seen["p50_ns"], seen["p99_ns"], seen["spread_ns"], seen["samples"]), (3, 30, [1, 8], 30))
        rates = figures.summarise([{"per_second": value, "took_ns": 1, "jobs": 2} for value in (5.0, 9.0)])
        self.assertEqual(rates, {"per_second": {"median": 7.0, "spread": [5.0, 9.0]}})

    def test_every_row_has_a_series_that_is_asked_for(self):
        asked = {request.series for request in figures.megaring_requests() + figures.torch_requests()}
        named = {row.series for row in goals.ROWS} | {one.series for row in goals.ROWS for one in row.beside}
        self.assertEqual(named - asked, set())
        without = figures.megaring_requests(False)
        self.assertEqual({request.mode for request in without}, {"persistent", "launch", "graph", "cpu"})
        for request in figures.megaring_requests():
            self.assertLessEqual(request.quick, request.count)
            self.assertGreaterEqual(request.quick, 1)

    def test_goals_are_judged_by_the_median_and_never_in_a_rehearsal(self):
        series = {
            "ring/persistent/nop": {"seen": {"p50_ns": 2_400, "p99_ns": 5_100, "spread_ns": [2_300, 2_600]}},
            "torch/launch": {"seen": {"p50_ns": 9_000}},
            "torch/copy": {"seen": {"p50_ns": 2_000_000}, "bytes": {"median": 8_600_000_000}},
            "ring/persistent/nop-rate": {"per_second": {"median": 1_234_567.0, "spread": [1.2e6, 1.3e6]}},
        }
        rows = {row[0]: row for row in goals.lines(series, False)}
        first = rows["nop, publish to completion seen"]
        self.assertEqual(first[1:4], ["2.40 µs", "2.30 µs to 2.60 µs", "<= 2.50 µs, met"])
        self.assertIn("torch launch + synchronise 9.00 µs", first[4])
        self.assertEqual(rows["nop, the same, p99"][1:4], ["5.10 µs", "", "<= 5.00 µs, missed"])
        self.assertEqual(rows["1 query, rescored"][1:4], ["not measured", "", "<= 12.0 µs"])
        self.assertIn("torch copy on the device 4,300 GB/s", rows["1 query on 1,000,000 rows, candidates seen"][4])
        self.assertEqual(rows["nops a second, 32 in the ring"][1], "1,234,567")
        self.assertEqual(rows["1 query by wgpu, rescored"][1], "not measured")
        without = {row[0]: row for row in goals.lines(series, False, "not available: no loader")}
        self.assertEqual(without["1 query by wgpu, rescored"][1:4], ["not available: no loader", "", "<= 150 µs"])
        self.assertEqual(without["single queries a second by wgpu, 32 in the ring"][1], "not available: no loader")
        self.assertEqual(without["1 query, rescored"][1], "not measured")
        rehearsed = goals.lines(series, True)
        text = goals.plain(rehearsed, True)
        self.assertTrue(text.startswith(goals.REHEARSAL))
        self.assertNotIn(" met", text)
        self.assertNotIn("missed", text)

    def test_a_record_says_what_was_measured_where_and_how(self):
        check = Run(arguments(["--bin", "b", "--out", "o"]), ["--bin", "b", "--out", "o"])
        adapter = {"name": "an adapter", "driver": "its driver", "api": "vulkan"}
        check.figures = {"rounds": 7, "torch": {"torch": "2.11", "cuda": "13.0"}, "wgpu": adapter}
        written = {
            "gpu": {"name": "NVIDIA H200", "driver_version": "580.1", "compute_cap": "9.0"},
            "built": {"commit": "0123456789", "profile": "release"},
            "host": {"cpu": "a processor", "processors": 16},
            "began": "2026-01-01T00:00:00Z",
            "seconds": 1234.5,
        }
        rows = goals.lines({"ring/persistent/nop": {"seen": {"p50_ns": 9, "p99_ns": 9, "spread_ns": [8, 9]}}}, False)
        text = check.record(rows, [steps.Result("doctor", PASSED, "fine")], written)
        for words in ("NVIDIA H200", "580.1", "0123456789", "release build", "PyTorch 2.11", "`ci/gpu-check --bin b --out o`",
                      "7 rounds", "wgpu: an adapter, its driver through vulkan.", "| nop, publish to completion seen | 9 ns |", "| doctor | passed | fine |", "1 passed, 0 failed"):
            self.assertIn(words, text)
        check.figures["wgpu"] = "not available: no loader"
        unknown = check.record(rows, [], {**written, "gpu": None, "built": {"commit": None}})
        self.assertIn("Commit unknown", unknown)
        self.assertIn("wgpu: not available: no loader.", unknown)

    def test_pytorch_can_do_what_it_is_asked(self):
        with tempfile.TemporaryDirectory() as folder:
            peers = [sys.executable, Path(__file__).with_name("peers.py"), "cpu", "--tiny"]
            with Program(peers, Path(folder) / "torch.log") as peer:
                greeting = peer.receive(300)
                if "missing" in greeting:
                    self.skipTest(greeting["missing"])
                for request in figures.torch_requests():
                    peer.send({"case": request.case, "repeat": 2})
                    found = peer.receive(300)
                    if request.case != "graph":
                        self.assertGreater(found.get("seen", {}).get("p50_ns", 0), 0, found)
                peer.send({"case": "unheard-of", "repeat": 1})
                self.assertIn("unknown case", peer.receive(300)["error"])
                self.assertEqual(peer.finish(60), 0)

    def test_times_have_three_digits(self):
        texts = {7: "7 ns", 999: "999 ns", 1_000: "1.00 µs", 12_345: "12.3 µs", 150_400: "150 µs", 3.1e6: "3.10 ms"}
        for nanos, text in texts.items():
            self.assertEqual(goals.time_text(nanos), text)

    def test_rounds_end_before_the_time_does(self):
        class Slow(figures.Alternation):
            def one_round(self):
                time.sleep(0.1)

        self.assertEqual(Slow(None, None, True, 60).rounds(3), 3)
        self.assertLess(Slow(None, None, True, 0.35).rounds(50), 4)


class Vulkan(unittest.TestCase):
    """A machine made of files: what is there of Vulkan, and what is made of it."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name) / "root"
        self.programs, self.out = Path(self.folder.name) / "bin", Path(self.folder.name) / "out"
        for folder in (self.root, self.programs, self.out):
            folder.mkdir()
        self.broken = set()

    def tearDown(self):
        self.folder.cleanup()

    def put(self, name, text=""):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def find(self, loader=True, listing=""):
        def loads(library, entry=""):
            known = loader if str(library) == vulkan.LOADER else Path(library).is_file()
            return known and Path(library).name not in self.broken

        return vulkan.find(self.programs, self.out, self.root, loads, listing)

    def test_a_manifest_is_written_where_the_driver_has_none(self):
        driver = self.put("usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.0")
        self.put("usr/lib/x86_64-linux-gnu/libnvidia-glvkspirv.so.580.1")
        self.put("usr/share/vulkan/icd.d/lvp_icd.json", '{"ICD": {"library_path": "libvulkan_lvp.so"}}')
        found = self.find()
        manifest = self.out / "nvidia_icd.json"
        self.assertEqual(json.loads(manifest.read_text())["ICD"]["library_path"], str(driver))
        self.assertEqual(found.env, {"VK_DRIVER_FILES": str(manifest), "VK_ICD_FILENAMES": str(manifest)})
        self.assertEqual(found.found["parts"], ["libnvidia-glvkspirv.so.580.1"])
        self.assertTrue(found.found["manifest_written"])

    def test_the_drivers_own_manifest_is_used_where_it_names_the_library(self):
        self.put("usr/lib64/libGLX_nvidia.so.0")
        self.put("etc/vulkan/icd.d/nvidia_icd.json", "no JSON")
        own = self.put("usr/share/vulkan/icd.d/nvidia_icd.x86_64.json", '{"ICD": {"library_path": "libGLX_nvidia.so.0"}}')
        self.assertEqual(self.find().env["VK_DRIVER_FILES"], str(own))
        self.assertFalse((self.out / "nvidia_icd.json").exists())
        # Without a screen's libraries, the other one.
        other = self.put("usr/lib64/libEGL_nvidia.so.0")
        self.broken = {"libGLX_nvidia.so.0"}
        self.assertEqual(self.find().found["driver"], str(other))
        self.assertTrue((self.out / "nvidia_icd.json").exists())

    def test_the_driver_is_found_where_the_system_lists_it(self):
        driver = self.put("opt/odd/libGLX_nvidia.so.0")
        listing = f"\tlibGLX_nvidia.so.0 (libc6,x86-64) => {driver}\n\tlibvulkan.so.1 (libc6) => nowhere\n"
        self.assertEqual(self.find(listing=listing).found["driver"], str(driver))

    def test_a_loader_that_was_brought_along_comes_first(self):
        self.put("usr/lib/libGLX_nvidia.so.0")
        (self.programs / vulkan.LOADER).write_text("")
        for there in (False, True):
            path = self.find(loader=there).env["LD_LIBRARY_PATH"].split(":")
            self.assertEqual(path[0], str(self.programs))
        self.broken = {vulkan.LOADER}
        with self.assertRaisesRegex(vulkan.Missing, "beside the programs"):
            self.find()

    def test_what_is_missing_is_said(self):
        with self.assertRaisesRegex(vulkan.Missing, "no Vulkan loader"):
            self.find(loader=False)
        with self.assertRaisesRegex(vulkan.Missing, "NVIDIA_DRIVER_CAPABILITIES"):
            self.find()
        self.put("usr/lib/libGLX_nvidia.so.0")
        self.broken = {"libGLX_nvidia.so.0"}
        with self.assertRaisesRegex(vulkan.Missing, "libGLX_nvidia.so.0 cannot be loaded"):
            self.find()

    def test_libraries_are_tried_in_a_process_of_their_own(self):
        self.assertFalse(vulkan.loads("libmegaring-has-no-such.so.1"))
        self.assertTrue(vulkan.loads("libc.so.6", "malloc"))
        self.assertFalse(vulkan.loads("libc.so.6", vulkan.ENTRY))

    def test_software_is_an_adapter_in_a_rehearsal_alone(self):
        software = {"name": "llvmpipe", "kind": "software", "software": True, "lacks": None}
        poor = {"name": "old", "kind": "discrete GPU", "software": False, "lacks": "has 4 where 5 are needed"}
        real = {"name": "a GPU", "kind": "discrete GPU", "software": False, "lacks": None}
        self.assertEqual(vulkan.choose([software, poor, real], False), real)
        self.assertEqual(vulkan.choose([poor, software], True), software)
        for adapters, words in (([software, poor], r"llvmpipe \(software\), old \(has 4"), ([], "none at all")):
            with self.assertRaisesRegex(vulkan.Missing, words):
                vulkan.choose(adapters, False)


# Plays megaring-gpu-check: every subcommand ends well, but those named in FAKE_FAILS.
FAKE = '''#!PYTHON
import json, os, sys, time
def say(**fields): print(json.dumps({**fields, "rehearsal": "--rehearse" in sys.argv}), flush=True)
task = sys.argv[1]
if task in os.environ.get("FAKE_FAILS", "").split(","):
    say(ok=False, error="a seeded failure"); sys.exit(1)
lap = {"count": 3, "min_ns": 1, "p50_ns": 2, "p99_ns": 3, "max_ns": 4, "mean_ns": 2.0}
if task == "version": say(ok=True, commit="0123456789", profile="release")
elif task == "adapters": say(ok=True, adapters=json.loads(os.environ.get("FAKE_ADAPTERS", "[]")))
elif task == "measure":
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("stop"): say(stopped=True)
        elif asked["case"].endswith("rate"): say(per_second=5.0, **asked)
        else: say(seen=lap, exact=lap, device=lap, **asked)
    say(ok=True)
elif task == "cycles":
    for cycle in (3, 9):
        say(checkpoint=cycle); sys.stdin.readline()
    say(ok=True, start=lap, stop=lap)
elif task == "hold":
    say(under_load=True, answers=5); time.sleep(600)
else: say(ok=True, answers=5, checks=2, checked=9, slots_per_second=3.0, jobs=1)
'''


class Whole(unittest.TestCase):
    """The whole script, rehearsing with programs that are played."""

    def run_it(self, fails="", adapters=()):
        with tempfile.TemporaryDirectory() as root:
            programs, out = Path(root) / "bin", Path(root) / "out"
            programs.mkdir()
            fake = programs / "megaring-gpu-check"
            fake.write_text(FAKE.replace("PYTHON", sys.executable))
            fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
            told = io.StringIO()
            os.environ.update({"FAKE_FAILS": fails, "FAKE_ADAPTERS": json.dumps(adapters)})
            try:
                with contextlib.redirect_stdout(told):
                    status = run_main(["--bin", str(programs), "--out", str(out), "--quick", "--rehearse"])
            finally:
                del os.environ["FAKE_FAILS"], os.environ["FAKE_ADAPTERS"]
            return status, told.getvalue(), json.loads((out / "results.json").read_text()), (out / "record.md").exists()

    def test_a_rehearsal_says_everywhere_that_it_is_one(self):
        status, told, results, recorded = self.run_it()
        self.assertEqual(status, 0, told)
        self.assertRegex(told, r"\n\d+ passed, 0 failed, \d+ skipped\n$")
        self.assertIn(goals.REHEARSAL, told)
        self.assertTrue(results["rehearsal"])
        self.assertFalse(recorded)
        self.assertEqual(results["figures"]["series"]["ring/persistent/nop"]["seen"]["p50_ns"], 2)
        self.assertEqual(results["built"]["commit"], "0123456789")
        self.assertTrue(all(one["rehearsal"] for one in results["figures"]["raw"]["ring/persistent/nop"]))

    def test_wgpu_is_checked_where_there_is_an_adapter_and_told_of_where_there_is_none(self):
        adapter = {"name": "llvmpipe", "kind": "software", "software": True, "lacks": None, "driver": "d", "limits": "l"}
        status, _, results, _ = self.run_it(adapters=[adapter])
        verdicts = {one["step"]: one["verdict"] for one in results["steps"] if "wgpu" in one["step"] or one["step"] == "vulkan"}
        self.assertEqual((status, set(verdicts.values()), len(verdicts)), (0, {PASSED}, 3))
        self.assertEqual(results["figures"]["series"]["ring/wgpu/query-1"]["exact"]["p50_ns"], 2)
        self.assertEqual(results["figures"]["wgpu"]["name"], "llvmpipe")
        status, told, results, _ = self.run_it()
        verdicts = {one["step"]: (one["verdict"], one["note"]) for one in results["steps"]}
        for step in ("vulkan", "first look, wgpu", "conformance, wgpu"):
            self.assertEqual(verdicts[step], (SKIPPED, "not available: Vulkan shows no adapter that can be used: none at all"))
        self.assertEqual(status, 0)
        self.assertFalse([name for name in results["figures"]["series"] if "wgpu" in name])
        self.assertTrue(results["figures"]["wgpu"].startswith("not available: "))
        self.assertRegex(told, r"1 query by wgpu, rescored +not available: ")

    def test_one_seeded_failure_is_one_failed_step_and_the_exit_status(self):
        tasks = {"torture": "torture", "hold": "kill -9", "cycles": "start and stop", "measure": "figures"}
        for task, step in tasks.items():
            status, told, results, _ = self.run_it(fails=task)
            self.assertEqual(status, 1, task)
            failed = [one["step"] for one in results["steps"] if one["verdict"] == FAILED]
            self.assertTrue(failed and all(name.startswith(step) for name in failed), (task, failed))
            self.assertRegex(told, rf"\n\d+ passed, {len(failed)} failed, \d+ skipped\n$")


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1
