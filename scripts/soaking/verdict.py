"""What has to be true when all is quiet again."""
import random
from pathlib import Path

from .ledger import GONE
from .say import say
from .workers import Restorer

COLLECT = ["gc", "--grace", "0s", "--evict-after", "2s", "--wait", "120s"]


class Verdict:
    """Asks the store, with nobody else there, and writes into the ledger what is wrong."""

    def __init__(self, crowd, ledger, home, scratch):
        self.crowd, self.ledger, self.home, self.scratch = crowd, ledger, home, scratch

    def ask(self, *words):
        outcome = self.crowd.run("verdict", self.home, *words)
        if outcome.exit:
            self.ledger.finding(f"afterwards, {outcome.told()}")
        return outcome.answer or {}

    def collect(self):
        for _ in range(2):
            done = self.ask(*COLLECT).get("done", {})
            self.ledger.count("deleted_bytes", done.get("deleted_bytes", 0))
            self.ledger.count("evictions", done.get("evicted_sessions", 0))

    def check(self):
        self.ask("store", "check", "--read-data")

    def keeps_its_promises(self):
        """What was acknowledged and not removed is there, byte for byte; what is there besides was once to be saved."""
        say("collecting, checking, and restoring everything")
        self.collect()
        self.check()
        listed = {revision["reference"] for workspace in self.ask("workspace", "list").get("workspaces", [])
                  for revision in self.ask("workspace", "list", workspace["workspace"]).get("revisions", [])}
        restorer = Restorer("verdict", self.crowd, self.ledger, self.home, random.Random(), scratch=self.scratch)
        for entry in self.ledger.here():
            if entry.reference not in listed:
                self.ledger.finding(f"{entry.reference} was acknowledged and not removed, and is not listed")
            restorer.restore(entry.reference, entry.digest, lambda: False)
        for reference in sorted(listed):
            entry = self.ledger.entries.get(reference)
            if entry is None:
                self.ledger.count("unacknowledged")
                restorer.restore(reference, self.ledger.attempted, lambda: False)
            elif entry.state == GONE:
                self.ledger.finding(f"{reference} was removed and is listed")

    def empties(self, store):
        """When everything is removed, nothing but what is small may be left. `store` is its folder, where it has one."""
        say("removing everything")
        for workspace in self.ask("workspace", "list").get("workspaces", []):
            self.ask("workspace", "remove", "--all", workspace["workspace"])
        self.collect()
        left = self.ask("gc", "--dry-run", "--grace", "0s").get("stored_bytes")
        if left != 0:
            self.ledger.finding(f"{left} bytes of packs are left when everything is removed")
        self.check()
        if store:
            files = [path for kind in ("packs", "meta") for path in Path(store, kind).rglob("*") if path.is_file()]
            if files:
                self.ledger.finding(f"{len(files)} files of packs are left when everything is removed, such as {files[0]}")
            self.ledger.count("marks", sum(1 for _ in Path(store).glob("evict/*/*.mark")))
