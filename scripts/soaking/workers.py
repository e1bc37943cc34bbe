"""What goes on at the same time on one store: saves, forks, restores, removals, collections, checks. Each command is a process."""
import shutil

from .ledger import GOING, GONE, HERE
from .luck import EVICT_AFTER
from .trees import digest

# Exit codes.
NOT_FOUND, CONFLICT, UNAVAILABLE = 4, 5, 6
TAKEN_FOR_DEAD = "took this save for dead"
# More revisions than that are not kept at a time: all of them are restored in the end.
MOST_KEPT = 24


class Worker:
    """One of those who do something again and again. `home` is where its caches and its state are: another host has its own."""

    def __init__(self, name, crowd, ledger, home, source):
        self.name, self.crowd, self.ledger, self.home, self.random = name, crowd, ledger, home, source

    def run(self, *words):
        return self.crowd.run(self.role, self.home, *words)

    def loop(self, stop):
        try:
            while not stop.is_set():
                self.once()
                stop.wait(self.random.uniform(0, self.pause))
        except Exception as error:
            self.ledger.finding(f"{self.name} gives up: {type(error).__name__}: {error}")

    def failed(self, outcome):
        """Judges an end that is none of the expected ones: whoever was killed may end anyhow."""
        if not outcome.was_killed:
            self.ledger.finding(f"{self.name}: {outcome.told()}")

    def was_beaten(self, outcome):
        """Whether a save was taken for dead so often that it gave up, as it may: nothing was acknowledged."""
        is_beaten = outcome.exit == UNAVAILABLE and TAKEN_FOR_DEAD in f"{outcome.error} {outcome.answer}"
        self.ledger.count("beaten", int(is_beaten))
        return is_beaten

    def acknowledge(self, outcome, what, tree):
        answer = outcome.answer
        self.ledger.acknowledge(answer["reference"], answer["workspace"], tree)
        self.ledger.count(what)


class Saver(Worker):
    """Changes its tree and saves it, to workspaces of its own and to one that all savers share."""

    role, pause = "save", 0.4

    def __init__(self, *rest, tree):
        super().__init__(*rest)
        self.tree = tree

    def once(self):
        self.tree.change()
        tree = self.tree.digest()
        self.ledger.attempt(tree)
        workspace = self.random.choice([f"{self.name}-a", f"{self.name}-b", "common"])
        options = ["--read-everything"] if self.random.random() < 0.1 else []
        outcome = self.run("workspace", "save", self.tree.folder, "--name", workspace, *options)
        if outcome.exit == 0 and outcome.answer:
            self.acknowledge(outcome, "saves", tree)
        elif not self.was_beaten(outcome):
            self.failed(outcome)


class Forker(Worker):
    role, pause = "fork", 1

    def once(self):
        entry = self.ledger.pick(self.random)
        if not entry:
            return
        workspace = self.random.choice(["fork-a", "fork-b", "common"])
        outcome = self.run("workspace", "copy", entry.reference, workspace)
        if outcome.exit == 0 and outcome.answer:
            self.acknowledge(outcome, "forks", entry.digest)
        elif outcome.exit == NOT_FOUND and entry.state != HERE:
            self.ledger.count("missed")
        elif not self.was_beaten(outcome):
            self.failed(outcome)


class Restorer(Worker):
    """Restores what is there, now and then what is not, and compares."""

    role, pause = "restore", 0.3

    def __init__(self, *rest, scratch):
        super().__init__(*rest)
        self.scratch = scratch

    def once(self):
        states = (GOING, GONE) if self.random.random() < 0.1 else (HERE,)
        entry = self.ledger.pick(self.random, states)
        if entry:
            was_gone = entry.state == GONE
            if self.restore(entry.reference, entry.digest, lambda: entry.state != HERE) and was_gone:
                self.ledger.finding(f"{entry.reference} was removed, and was restored afterwards")

    def restore(self, reference, expected, may_be_gone):
        """Restores a revision and compares it; returns whether it was there."""
        self.scratch.mkdir()
        try:
            outcome = self.run("workspace", "restore", reference, self.scratch / "tree")
            if outcome.exit == 0:
                found = digest(self.scratch / "tree")
                if found != expected and not (isinstance(expected, set) and found in expected):
                    self.ledger.finding(f"{reference} is not what was saved: {outcome.told()}")
                    shutil.copytree(self.scratch, self.scratch.with_name("wrong"), symlinks=True, dirs_exist_ok=True)
                self.ledger.count("restores")
            elif outcome.exit == NOT_FOUND and may_be_gone():
                self.ledger.count("missed")
            else:
                self.failed(outcome)
            return outcome.exit == 0
        finally:
            shutil.rmtree(self.scratch)


class Remover(Worker):
    role, pause = "remove", 0.5

    def once(self):
        if len(self.ledger.here()) < self.random.randint(MOST_KEPT // 3, MOST_KEPT):
            return
        entry = self.ledger.doom(self.random)
        if not entry:
            return
        outcome = self.run("workspace", "remove", entry.reference)
        # One that was cut short may have done it.
        is_gone = outcome.exit in (0, NOT_FOUND)
        self.ledger.removed(entry, is_gone)
        if is_gone:
            self.ledger.count("removals")
        else:
            self.failed(outcome)


class Collector(Worker):
    role, pause = "collect", 1.5

    def once(self):
        grace = self.random.choice(["0s", "2s"])
        most_dead = ["--max-dead", "0"] if self.random.random() < 0.8 else []
        outcome = self.run("gc", "--grace", grace, "--evict-after", f"{EVICT_AFTER}s", "--wait", "20s", *most_dead)
        if outcome.exit == 0 and outcome.answer:
            self.collected(outcome.answer)
        elif outcome.exit == CONFLICT:
            # The other collector took this one for dead.
            self.ledger.count("collectors_evicted")
        else:
            self.failed(outcome)

    def collected(self, answer):
        done = answer["done"]
        self.ledger.count("collections")
        self.ledger.count("deleting", int(done["deleted_bytes"] > 0))
        self.ledger.count("deleted_bytes", done["deleted_bytes"])
        self.ledger.count("moved_chunks", done["moved_chunks"])
        self.ledger.count("evictions", done["evicted_sessions"])
        self.ledger.count("forgotten", done["forgotten_revisions"])
        self.ledger.count("still_open", int(done["still_open_sessions"] > 0))
        if answer["lost_chunks"] or answer["stuck_packs"]:
            self.ledger.finding(f"{self.name} misses chunks: {answer['lost_chunks']}, {answer['stuck_packs']}")


class Checker(Worker):
    """Checks what the store holds while it changes."""

    role, pause = "check", 6

    def once(self):
        outcome = self.run("store", "check")
        if outcome.exit == 0:
            self.ledger.count("checks")
        else:
            self.failed(outcome)
