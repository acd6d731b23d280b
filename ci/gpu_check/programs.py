"""Programs that are run: each in a process group of its own, with a time limit, its output kept in a log.

A program that outlives its limit is killed with everything it started; nothing else ever is, but by `kill_hard`, which is the test itself.
"""

import json
import os
import queue
import signal
import subprocess
import threading
import time


class OutOfTime(Exception):
    """A program did not answer, or did not end, within its limit."""


class Ended(Exception):
    """A program ended before it answered."""


class Program:
    """A running program. Its standard output is read line by line, its standard error goes to the log."""

    def __init__(self, command, log, env=None):
        self.command = [str(part) for part in command]
        self.lines = []
        self._log = open(log, "a", encoding="utf-8", errors="replace")
        self._log.write("$ " + " ".join(self.command) + "\n")
        self._log.flush()
        self._queue = queue.Queue()
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end_group()
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except OSError:
                pass
        self._log.close()

    def send(self, message):
        """Writes one JSON object as a line."""
        try:
            self._process.stdin.write((json.dumps(message) + "\n").encode())
            self._process.stdin.flush()
        except OSError as error:
            raise Ended(self._how_it_ended()) from error

    def receive(self, limit):
        """The next JSON object that it prints; other lines are passed over. `Ended` where there is none."""
        end = time.monotonic() + limit
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise OutOfTime(f"no answer within {limit:.0f} s") from None
            if line is None:
                self._queue.put(None)
                raise Ended(self._how_it_ended())
            message = as_object(line)
            if message is not None:
                return message

    def finish(self, limit):
        """Waits for its end; answers its exit status (negative: the signal that ended it) with all it printed in `lines`."""
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            status = self._process.wait(max(0.1, limit))
        except subprocess.TimeoutExpired:
            self._end_group()
            raise OutOfTime(f"it did not end within {limit:.0f} s") from None
        self._reader.join(5)
        return status

    def kill_hard(self):
        """What `kill -9` does to it, and to it alone."""
        os.kill(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    @property
    def is_running(self):
        return self._process.poll() is None

    def objects(self):
        """All JSON objects that it has printed."""
        return [found for found in map(as_object, self.lines) if found is not None]

    def _read(self):
        for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            self.lines.append(line)
            self._queue.put(line)
            try:
                self._log.write(line + "\n")
                self._log.flush()
            except ValueError:
                pass
        self._queue.put(None)

    def _how_it_ended(self):
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"it ended with {ending(status)}"

    def _end_group(self):
        # The group may outlive its leader. It is ours: `start_new_session` made it, and its number is not reused while a member lives.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self._process.wait()


def as_object(line):
    """A JSON object, where the line is one."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def ending(status):
    """An exit status in words."""
    if status < 0:
        try:
            return f"signal {signal.Signals(-status).name}"
        except ValueError:
            return f"signal {-status}"
    return f"exit status {status}"


def ask(command, limit=30):
    """Standard output of a command that only looks; `None` where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
