"""The processes of a run: who runs, what became of them, and who is killed or stopped."""
import json
import signal
import subprocess
import sys
import threading
import time

# In a group of their own they do not hear the terminal's Ctrl-C. In our session, they are woken when we are killed: the kernel
# continues the stopped members of a group that has lost its parent.
OWN_GROUP = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
# A command that takes longer hangs: nothing here is large.
HANGS = 240


class Outcome:
    """What became of a command: `exit` is the code, negative for a signal; `answer` is what it printed as JSON, if it did."""

    def __init__(self, words, process, out, err, member):
        self.words, self.exit, self.error = words, process.returncode, err.strip()
        self.was_killed, self.stops = member.is_killed and process.returncode == -signal.SIGKILL, member.stops
        self.seconds = time.monotonic() - member.since
        try:
            self.answer = json.loads(out)
        except ValueError:
            self.answer = None
            self.error += out[-500:]

    def told(self):
        """Returns the command and its end in one line."""
        error = self.error or (json.dumps(self.answer) if self.exit else "")
        stopped = f", stopped {self.stops} times" if self.stops else ""
        return f"`kiln {' '.join(self.words)}` exit {self.exit} after {self.seconds:.1f} s{stopped}: {error[:1500]}"


class Member:
    def __init__(self, role, process):
        self.role, self.process = role, process
        self.since, self.stops, self.is_killed, self.is_stopped = time.monotonic(), 0, False, False


class Crowd:
    """Runs the program with `settings` for every process, and knows the processes that live."""

    def __init__(self, program, store, settings, ledger, journal):
        self.program, self.store, self.settings, self.ledger, self.journal = str(program), store, settings, ledger, journal
        self.lock = threading.Lock()
        self.members = set()
        self.began = time.monotonic()

    def run(self, role, home, *words):
        """Runs a command to its end, whatever happens to it meanwhile."""
        words = [*map(str, words), "--json", "--quiet"]
        with self.lock:
            process = subprocess.Popen([self.program, "--store", self.store, *words], env=self.settings | home, text=True,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **OWN_GROUP)
            member = Member(role, process)
            self.members.add(member)
        try:
            out, err = process.communicate(timeout=HANGS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate()
            self.ledger.finding(f"`kiln {' '.join(words)}` does not end within {HANGS} s: {err.strip()[:500]}")
        with self.lock:
            self.members.discard(member)
        outcome = Outcome(words, process, out, err, member)
        if outcome.was_killed:
            self.ledger.count("killed")
        self.note(role, outcome)
        return outcome

    def note(self, role, outcome):
        line = {"at": round(time.monotonic() - self.began, 3), "role": role, "words": outcome.words, "exit": outcome.exit,
                "seconds": round(outcome.seconds, 3), "stops": outcome.stops, "answer": outcome.answer, "error": outcome.error}
        if outcome.answer and "items" in outcome.answer:
            line["answer"] = outcome.answer | {"items": len(outcome.answer["items"])}
        with self.lock:
            self.journal.write(json.dumps(line) + "\n")
            self.journal.flush()

    def victim(self, source):
        """Returns a process that runs, of a role that is chosen first: there are more savers than collectors, or None."""
        with self.lock:
            of = sorted((member for member in self.members if not member.is_stopped and member.process.poll() is None),
                        key=lambda member: member.process.pid)
            roles = sorted({member.role for member in of})
            role = source.choice(roles) if roles else None
            return source.choice([member for member in of if member.role == role]) if roles else None

    def kill(self, member):
        with self.lock:
            member.is_killed = True
            member.process.send_signal(signal.SIGKILL)

    def stop(self, member):
        with self.lock:
            member.is_stopped = True
            member.stops += 1
            member.process.send_signal(signal.SIGSTOP)

    def resume(self, member):
        """Lets a stopped process go on; returns whether it was still there."""
        with self.lock:
            is_there = member.process.poll() is None
            member.process.send_signal(signal.SIGCONT)
            member.is_stopped = False
            return is_there

    def end(self):
        """Kills whoever is left."""
        with self.lock:
            for member in self.members:
                member.is_killed = True
                member.process.send_signal(signal.SIGKILL)
