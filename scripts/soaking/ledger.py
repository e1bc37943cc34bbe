"""What the store has promised, and what it was seen to do."""
import collections
import threading

HERE, GOING, GONE = "here", "going", "gone"


class Entry:
    """An acknowledged revision: `going` from the moment that its removal began, `gone` once that was acknowledged, too."""

    def __init__(self, reference, workspace, digest):
        self.reference, self.workspace, self.digest = reference, workspace, digest
        self.state, self.is_busy = HERE, False


class Ledger:
    """Everything is asked under one lock, since every worker writes into it."""

    def __init__(self):
        self.lock = threading.RLock()
        self.entries = {}
        # Digests that were ever to be saved: what stands in a revision that nobody acknowledged is one of them.
        self.attempted = set()
        self.counts = collections.Counter()
        self.findings = []
        self.found = threading.Event()

    def attempt(self, digest):
        with self.lock:
            self.attempted.add(digest)

    def acknowledge(self, reference, workspace, digest):
        with self.lock:
            if reference in self.entries:
                self.finding(f"{reference} was acknowledged twice")
            self.entries[reference] = Entry(reference, workspace, digest)

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def finding(self, text):
        with self.lock:
            self.findings.append(text)
            self.found.set()

    def pick(self, source, states=(HERE,)):
        """Returns an acknowledged revision in one of the states, or None."""
        with self.lock:
            of = sorted(reference for reference, entry in self.entries.items() if entry.state in states)
            return self.entries[source.choice(of)] if of else None

    def here(self):
        with self.lock:
            return [entry for entry in self.entries.values() if entry.state == HERE]

    def doom(self, source):
        """Returns a revision whose removal begins now, or one whose removal was cut short; never the newest of its workspace."""
        with self.lock:
            newest = {}
            for reference in sorted(reference for reference, entry in self.entries.items() if entry.state == HERE):
                newest[self.entries[reference].workspace] = reference
            of = sorted(reference for reference, entry in self.entries.items()
                        if entry.state != GONE and not entry.is_busy and reference not in newest.values())
            if not of:
                return None
            entry = self.entries[source.choice(of)]
            entry.state, entry.is_busy = GOING, True
            return entry

    def removed(self, entry, is_gone):
        with self.lock:
            entry.is_busy = False
            if is_gone:
                entry.state = GONE
