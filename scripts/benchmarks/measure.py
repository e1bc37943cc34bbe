"""Runs one command and says what it took: time, processor time, peak memory; on request within a limit of memory."""
import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .say import say

# Between two looks at the memory of a command. A peak shorter than this can be missed.
SAMPLE_SECONDS = 0.02


@dataclass
class Command:
    """What to run, and where. `pipe` is a line for a shell instead of words."""

    words: list
    environment: dict = None
    folder: str = None

    @staticmethod
    def pipe(line, **options):
        return Command(["bash", "-c", f"set -o pipefail; {line}"], **options)


@dataclass
class Taken:
    """`peak_anonymous` is the largest sum of RssAnon over the command's processes; `peak_resident` is the kernel's own peak of the
    largest single process, mapped files included. `sync_seconds` is what a sync took afterwards; it is not in `seconds`."""

    seconds: float
    processor_seconds: float
    peak_anonymous: int
    peak_resident: int
    sync_seconds: float
    answer: str

    def figures(self):
        return {name: value for name, value in asdict(self).items() if name != "answer"}


class Failed(Exception):
    """A command ended with an error; the text is the end of what it said."""


class Sampler(threading.Thread):
    """Watches the memory of a process group until told to stop."""

    def __init__(self, group):
        super().__init__(daemon=True)
        self.group, self.peak, self.over = group, 0, threading.Event()
        self.start()

    def members(self):
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    with open(f"/proc/{name}/stat") as file:
                        # Behind the name, which may hold anything: state, parent, process group.
                        if int(file.read().rpartition(")")[2].split()[2]) == self.group:
                            found.append(name)
        return found

    def run(self):
        members, look = [str(self.group)], 0
        while not self.over.wait(SAMPLE_SECONDS):
            # Who belongs to the group is looked up seldom: it costs more than the sizes of the few that do.
            if look in (1, 5, 15) or look % 40 == 0:
                members = self.members()
            look += 1
            total = 0
            for process in members:
                with contextlib.suppress(OSError):
                    with open(f"/proc/{process}/status") as file:
                        found = re.search(r"RssAnon:\s+(\d+)", file.read())
                    total += int(found[1]) * 1024 if found else 0
            self.peak = max(self.peak, total)


def take(command, limit=None, timeout=3600):
    """Runs a command and returns what it took. Raises Failed when it fails or takes longer than `timeout` seconds."""
    os.sync()
    words = [str(word) for word in command.words]
    if limit:
        words = limit.within(words)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        child = subprocess.Popen(words, env=command.environment, cwd=command.folder, stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=errors, start_new_session=True)
        sampler = Sampler(child.pid)
        late = threading.Timer(timeout, os.killpg, (child.pid, signal.SIGKILL))
        late.start()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        late.cancel()
        sampler.over.set()
        sampler.join()
        if child.returncode:
            errors.seek(max(0, errors.seek(0, 2) - 1500))
            text = errors.read().decode(errors="replace").strip()
            raise Failed(f"`{' '.join(words)[:200]}` ended with {child.returncode} after {seconds:.1f} s: {text}")
        out.seek(0)
        answer = out.read(1 << 20).decode(errors="replace")
    started = time.monotonic()
    os.sync()
    return Taken(seconds, usage.ru_utime + usage.ru_stime, sampler.peak, usage.ru_maxrss * 1024, time.monotonic() - started, answer)


class MemoryLimit:
    """A control group that bounds the memory of what runs in it: page cache and kernel memory count too. Needs root."""

    V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")

    def __init__(self, size):
        name = f"kiln-bench-{os.getpid()}"
        if (self.V1 / "memory.limit_in_bytes").exists():
            self.folder, knob, self.peak_file = self.V1 / name, "memory.limit_in_bytes", "memory.max_usage_in_bytes"
        elif "memory" in (self.V2 / "cgroup.subtree_control").read_text().split():
            self.folder, knob, self.peak_file = self.V2 / name, "memory.max", "memory.peak"
        else:
            raise OSError("no memory controller of control groups can be used")
        self.folder.mkdir(exist_ok=True)
        (self.folder / knob).write_text(str(size))

    @staticmethod
    def make(size):
        """Returns a limit, or None where this host allows none, and says so."""
        try:
            return MemoryLimit(size)
        except OSError as error:
            say(f"no limit of memory can be set here ({error}); what needs one is left out")
            return None

    def within(self, words):
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs"), *words]

    def peak(self):
        """Returns the peak of all memory charged to the group, which reaches the limit as soon as files are read or written."""
        file = self.folder / self.peak_file
        return int(file.read_text()) if file.exists() else None

    def close(self):
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def stored(folder):
    """Returns the bytes that a folder occupies on its disk."""
    total = 0
    for parent, _, files in os.walk(folder):
        total += sum(os.lstat(os.path.join(parent, name)).st_blocks * 512 for name in files)
    return total


def empty(folder):
    """Gives back the space of a folder's files and leaves their inodes for the end.

    For a while after a deletion ext4 steps around the inodes that it freed, and whatever creates files then looks slow.
    """
    for parent, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.truncate(path, 0)


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)


def remove_in_the_end(folder):
    """Empties a folder now and deletes it when the program ends, so that what is measured later does not pay for the deletion."""
    empty(folder)
    atexit.register(remove, folder)
