"""Saves, restores, checks and collects one workspace with Kiln and with what it replaces, in one run and in turn.

Each run gives every tool a fresh repository on the disk. A phase is measured for one tool after the other before the next phase
begins, and the order moves on by one with every run. The tree lies on the same disk and in the page cache; restores go to tmpfs.
"""
import os
import shutil
import tempfile
from pathlib import Path

from . import contestants, dataset, measure
from .figures import Figures
from .say import say

# What a phase needs to have happened before.
PHASES = {
    "save": [],
    "level3": ["save"],
    "unchanged": ["save"],
    "changed": ["save"],
    "restore": ["save"],
    "resave": ["restore"],
    "update": ["changed"],
    "check": ["save"],
    "collect": ["changed"],
}

# `scripts/bench gc` measures the collection.
USUAL = [phase for phase in PHASES if phase != "collect"]
COLLECTION = ["check", "collect"]


def with_needs(phases):
    """Returns the phases and all that they need, in order."""
    wanted = set(phases)
    while more := {need for phase in wanted for need in PHASES[phase]} - wanted:
        wanted |= more
    return [phase for phase in PHASES if phase in wanted]


class Round:
    """One run: a repository for every tool, and the tree in its first state when it begins and when it ends."""

    def __init__(self, number, folder, memory, tree, change, tools, figures, phases):
        self.number, self.folder, self.memory, self.tree, self.change = number, folder, memory, tree, change
        self.figures, self.phases, self.out = figures, phases, set()
        kinds = tools[number % len(tools):] + tools[: number % len(tools)]
        self.tools = [make(folder / make.label) for make in kinds]
        for tool in self.tools:
            tool.init()

    def take(self, tool, phase, *commands, metric=None):
        """Measures commands as one and returns the last answer; a tool that fails is out of this run."""
        answer = self.figures.take(tool, self.number, phase, commands, metric)
        if answer is None:
            self.out.add(tool.name)
        return answer

    def measure(self):
        for phase in self.phases:
            if phase == "changed":
                self.change.apply()
            for tool in self.tools:
                if tool.name not in self.out:
                    getattr(self, phase)(tool)

    def save(self, tool, phase="save"):
        command = tool.save(self.tree)
        if command is None:
            return
        answer = self.take(tool, phase, command)
        if answer is not None:
            tool.saved(answer)
            tool.sizes = [*getattr(tool, "sizes", []), tool.stored()]
            if phase == "save":
                self.figures.add(tool.name, "stored", tool.sizes[0])
            if phase == "changed":
                self.figures.add(tool.name, "growth", tool.sizes[-1] - tool.sizes[-2])

    def level3(self, tool):
        if not isinstance(tool, contestants.Kiln):
            return
        other = type(tool)(self.folder / f"{tool.name}-level3", tool.program)
        other.init()
        if self.take(tool, "level3", other.save(self.tree, "--level", "3")) is not None:
            self.figures.add(tool.name, "stored at level 3", other.stored())
        measure.empty(other.folder)

    def unchanged(self, tool):
        if isinstance(tool, contestants.Find):
            self.take(tool, "unchanged", tool.look(self.tree))
        elif not isinstance(tool, contestants.TarZstd):  # which has no other save than the first
            self.save(tool, "unchanged")

    def changed(self, tool):
        if not isinstance(tool, contestants.TarZstd):
            self.save(tool, "changed")

    def target(self):
        return Path(tempfile.mkdtemp(prefix="target-", dir=self.memory))

    def restore(self, tool):
        target = self.target()
        command = tool.restore(self.tree, target)
        if command is not None and self.take(tool, "restore", command) is not None:
            # tar has saved the tree as it was first.
            if not isinstance(tool, contestants.TarZstd):
                self.compare(tool, "restore", tool.restored(self.tree, target))
            if isinstance(tool, contestants.Kiln) and "resave" in self.phases:
                again = tool.save(tool.restored(self.tree, target))
                answer = self.take(tool, "resave", again)
                if answer is not None:
                    tool.saved(answer)
        measure.remove(target)

    def resave(self, tool):
        """Measured right after the restore, while its tree is there."""

    def update(self, tool):
        if not isinstance(tool, contestants.Kiln):
            return
        target = self.target()
        into = tool.restored(self.tree, target)
        first, last = tool.revisions[0], tool.revisions[-1]
        if self.take(tool, "update", tool.restore(self.tree, target, revision=first), metric="full restore") is not None:
            if self.take(tool, "update", tool.restore(self.tree, into, "--update", revision=last)) is not None:
                self.compare(tool, "update", into)
        measure.remove(target)

    def check(self, tool):
        command = tool.check()
        if command is not None:
            self.take(tool, "check", command)

    def collect(self, tool):
        commands = tool.collect()
        if commands and self.take(tool, "collect", *commands) is not None:
            self.figures.add(tool.name, "stored after collect", tool.stored())
            if isinstance(tool, contestants.Kiln):
                self.figures.add(tool.name, "stored garbage after collect", tool.garbage())

    def compare(self, tool, phase, restored):
        """Looks whether a restore gave back the tree: names and sizes for all tools; content, modes and times too for Kiln."""
        if isinstance(tool, contestants.Kiln) and self.number == 0:
            wrong = difference(self.tree, restored)
        else:
            mine, theirs = dataset.tally(self.tree), dataset.tally(restored)
            wrong = None if mine == theirs else f"{theirs} instead of {mine}"
        if wrong:
            self.figures.fail(tool, self.number, phase, f"the tree differs: {wrong}")


def difference(tree, other):
    """Returns what differs first between two trees in names, content, modes, owners, links or times; None if nothing does."""
    count = 0
    for folder, folders, files in os.walk(tree):
        beside = os.path.join(other, os.path.relpath(folder, tree))
        if not os.path.isdir(beside) or sorted(os.listdir(folder)) != sorted(os.listdir(beside)):
            return f"names in {folder}"
        for name in files + folders:
            mine, theirs = os.path.join(folder, name), os.path.join(beside, name)
            left, right = os.lstat(mine), os.lstat(theirs)
            for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"):
                if getattr(left, field) != getattr(right, field):
                    return f"{field} of {mine}"
            if os.path.islink(mine):
                if os.readlink(mine) != os.readlink(theirs):
                    return f"link {mine}"
            elif os.path.isfile(mine) and (left.st_size != right.st_size or Path(mine).read_bytes() != Path(theirs).read_bytes()):
                return f"content of {mine}"
            count += 1
    return None if count else "nothing was compared"


def labelled(kind, program):
    """Returns what makes a contestant, with a label for its folder."""
    def make(folder):
        return kind(folder, program)
    make.label = kind.name.replace(" ", "")
    return make


def bench(tools, runs, phases, keep=False):
    """Measures and returns figures and facts. `tools` are pairs of contestant and program."""
    pristine, facts = dataset.prepare()
    phases = with_needs(phases)
    folder = Path(tempfile.mkdtemp(prefix="workspace-", dir=dataset.runs()))
    memory = Path(tempfile.mkdtemp(prefix="kiln-bench-", dir="/dev/shm"))
    figures = Figures()
    try:
        say("copying the tree")
        tree = folder / "tree"
        shutil.copytree(pristine, tree, symlinks=True)
        change = dataset.Change(tree, pristine)
        dataset.tally(tree)
        makers = [labelled(*tool) for tool in tools]
        for number in range(runs):
            if number:
                change.revert()
            warm(tree)
            now = Round(number, folder / f"run-{number}", memory, tree, change, makers, figures, phases)
            now.measure()
            measure.empty(folder / f"run-{number}")
        figures.add_peaks()
    finally:
        measure.remove(memory)
        if not keep:
            measure.remove_in_the_end(folder)
    return figures, facts


def warm(tree):
    """Reads everything once, so that no tool pays for the disk."""
    for folder, _, files in os.walk(tree):
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    while file.read(1 << 20):
                        pass
