"""The workspace that the benchmarks save: made once, kept outside the clone, and changed as a working session changes it.

A virtualenv, a node_modules, a git checkout with a history made of their sources, and a SQLite file: about 2 GB. What the
registries serve is pinned at the top level; `dataset.json` beside the tree says what came out (files, bytes, a fingerprint of
paths and sizes), so that figures can be compared only where they may be.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from .say import say

PYTHON = ["litellm[proxy]==1.106.0", "numpy==2.4.6", "pandas==3.1.1"]
NODE = {
    "next": "16.4.6",
    "vite": "8.3.8",
    "typescript": "5.9.3",
    "eslint": "10.15.0",
    "@mui/material": "9.5.0",
    "playwright-core": "1.65.1",
    "opencode-ai": "1.18.33",
}
# npm takes for everything below what was the newest on this day.
NODE_BEFORE = "2026-11-22"

DATABASE_BYTES = 240_000_000
SEED = 20261123
EDITED, NEW, DELETED, MOVED, ROWS = 200, 300, 100, 50, 400

WORDS = """account active agent amount answer archive array asset batch block branch bucket budget build cache call channel check
child client cloud code column commit config count create cursor data date default delete deploy detail device digest disk
document domain draft edge email enable engine entry error event expire export failed field file filter final folder format
frame group handle header health history host image import index input instance invoice item job key label language latest
layer limit list local lock log machine main manager map market memory merge message method metric mode model module month
name network node note notice number object offer open option order output owner package page parent part path payment period
plan point policy pool port price process product profile project prompt provider public query queue range rate reason record
region release remote report request reset resource response result retry review role root route row rule sample schedule
schema score script search section secret segment server service session shape share signal size source space stage standard
start state status step store stream string style subject summary support switch table tag target task team template tenant
test text thread ticket time title token tool topic total trace track transfer trial type unit update upload usage user value
vector version view volume wait week window worker workspace write year zone""".split()


def cache():
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kiln"


def home():
    return cache() / "bench/workspace-v1"


def runs():
    """Returns the folder for what runs make; it lies on the disk. A run that was killed leaves its part there."""
    folder = cache() / "bench/runs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tally(tree):
    """Returns what is in a tree: entries by kind, bytes, and a fingerprint of sorted paths and sizes."""
    count = {"files": 0, "directories": 0, "symlinks": 0, "bytes": 0}
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(tree):
        folders.sort()
        count["directories"] += 1
        for name in sorted(files) + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if os.path.islink(path):
                count["symlinks"] += 1
                continue
            count["files"] += 1
            count["bytes"] += status.st_size
            digest.update(f"{os.path.relpath(path, tree)}\0{status.st_size}\n".encode("utf-8", "surrogateescape"))
    return count | {"fingerprint": digest.hexdigest()[:16]}


def prepare():
    """Returns the pristine tree and its facts, making what is missing. One process makes it, others wait."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        facts = folder / "dataset.json"
        if not facts.exists():
            for make in (virtualenv, node_modules, git_checkout, database):
                done = folder / f"{make.__name__}.done"
                if done.exists():
                    continue
                say(f"data set: {make.__name__}")
                part = folder / "tree" / make.__name__
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                make(part)
                done.touch()
            found = tally(folder / "tree") | {"python": PYTHON, "node": NODE, "node_before": NODE_BEFORE}
            facts.write_text(json.dumps(found, indent=2) + "\n")
        return folder / "tree", json.loads(facts.read_text())


def quietly(command, **options):
    answer = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if answer.returncode:
        sys.exit(f"bench: `{' '.join(map(str, command[:4]))} …` failed:\n{answer.stdout[-3000:]}")
    return answer.stdout


def virtualenv(part):
    quietly([sys.executable, "-m", "venv", part])
    quietly([part / "bin/python", "-m", "pip", "install", "--quiet", *PYTHON])


def node_modules(part):
    manifest = {"name": "workspace", "version": "1.0.0", "private": True, "dependencies": NODE}
    (part / "package.json").write_text(json.dumps(manifest, indent=2) + "\n")
    quietly(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", f"--before={NODE_BEFORE}"], cwd=part)


def git_checkout(part):
    """Makes a repository of the sources installed beside it, with a history of small edits, packed."""
    tree = part.parent
    packages = next(tree.glob("virtualenv/lib/python*/site-packages"))
    sources = [packages / name for name in ("litellm", "pandas", "numpy", "openai")]
    sources += [tree / "node_modules/node_modules" / name for name in ("typescript", "playwright-core", "@mui/material", "vite")]
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words, at=0):
        when = f"{1_760_000_000 + at * 86_400} +0000"
        identity = {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER")
                    for field, value in (("NAME", "Kiln"), ("EMAIL", "kiln@example.org"), ("DATE", when))}
        quietly(["git", "-c", "gc.auto=0", "-c", "init.defaultBranch=main", *words], cwd=part, env=environment | identity)

    git("init", "--quiet")
    chance = random.Random(SEED)
    for day, source in enumerate(sources):
        skip = shutil.ignore_patterns("*.pyc", "__pycache__", "*.so", "*.map", "node_modules", ".git*")
        shutil.copytree(source, part / "src" / source.name, ignore=skip)
        git("add", "--all", "--force")
        git("commit", "--quiet", "--message", f"add {source.name}", at=day)
    files = sorted(path for path in (part / "src").rglob("*") if path.suffix in (".py", ".js", ".ts") and path.is_file())
    for day in range(len(sources), len(sources) + 25):
        for path in chance.sample(files, 60):
            edit(path, chance)
        git("commit", "--quiet", "--all", "--message", f"day {day}", at=day)
    git("repack", "-a", "-d", "--quiet", "--threads=2")


def sentences(chance, count):
    return [" ".join(chance.choices(WORDS, k=chance.randint(6, 18))).capitalize() + "." for _ in range(count)]


def database(part):
    """Makes a database as an application has one: users, events with JSON, messages with text, two indexes."""
    chance = random.Random(SEED)
    pool = sentences(chance, 60_000)
    path = part / "app.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.executescript("""
            PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA page_size = 4096;
            CREATE TABLE user (id INTEGER PRIMARY KEY, email TEXT, name TEXT, created INTEGER);
            CREATE TABLE event (id INTEGER PRIMARY KEY, user INTEGER, at INTEGER, kind TEXT, body TEXT);
            CREATE TABLE message (id INTEGER PRIMARY KEY, user INTEGER, at INTEGER, text TEXT, tokens INTEGER, cost REAL);
            CREATE INDEX event_user ON event (user, at);
            CREATE INDEX message_at ON message (at);
        """)
        users = [(n, f"{chance.choice(WORDS)}.{n}@example.org", " ".join(chance.sample(WORDS, 2)).title(), 1_700_000_000 + n * 61)
                 for n in range(20_000)]
        base.executemany("INSERT INTO user VALUES (?, ?, ?, ?)", users)
        clock = 1_760_000_000
        while path.stat().st_size < DATABASE_BYTES:
            events, messages = [], []
            for _ in range(5_000):
                clock += chance.randint(1, 40)
                body = {"request": f"{chance.getrandbits(128):032x}", "path": "/".join(chance.sample(WORDS, 3)),
                        "status": chance.choice([200, 200, 200, 201, 404, 500]), "ms": round(chance.expovariate(0.02), 3),
                        "detail": chance.choice(pool)}
                events.append((chance.randrange(20_000), clock, chance.choice(WORDS[:30]), json.dumps(body)))
                text = " ".join(chance.choices(pool, k=chance.randint(1, 9)))
                messages.append((chance.randrange(20_000), clock, text, len(text) // 4, round(chance.random(), 6)))
            base.executemany("INSERT INTO event (user, at, kind, body) VALUES (?, ?, ?, ?)", events)
            base.executemany("INSERT INTO message (user, at, text, tokens, cost) VALUES (?, ?, ?, ?, ?)", messages)
            base.commit()


def edit(path, chance):
    """Inserts a line somewhere into a file, as an editor would."""
    content = path.read_bytes()
    at = content.rfind(b"\n", 0, chance.randrange(len(content) + 1)) + 1
    line = f"# {' '.join(chance.choices(WORDS, k=8))}\n".encode()
    path.write_bytes(content[:at] + line + content[at:])


class Change:
    """One working session on a copy of the data set: 650 files and 400 database rows; always the same for the same tree."""

    def __init__(self, tree, pristine, seed=SEED):
        self.tree, self.pristine, self.seed = Path(tree), Path(pristine), seed
        chance = random.Random(seed)
        paths = []
        for folder, folders, files in os.walk(pristine):
            folders[:] = sorted(name for name in folders if name != ".git")
            paths += [os.path.relpath(os.path.join(folder, name), pristine) for name in sorted(files)]
        paths = [path for path in paths if not path.endswith(".sqlite") and not os.path.islink(self.pristine / path)]
        written = [path for path in paths if path.endswith((".py", ".js", ".ts", ".json", ".md", ".css", ".mjs"))
                   and 0 < os.path.getsize(self.pristine / path) < 1_000_000]
        self.edited = chance.sample(written, EDITED)
        rest = [path for path in paths if path not in set(self.edited)]
        others = chance.sample(rest, DELETED + MOVED)
        self.deleted = others[:DELETED]
        self.moved = [(path, f"git_checkout/moved/{n:02}/{os.path.basename(path)}") for n, path in enumerate(others[DELETED:])]
        self.new = [f"git_checkout/new/{n % 20:02}/{chance.choice(WORDS)}-{n:03}.py" for n in range(NEW)]

    def apply(self):
        chance = random.Random(self.seed + 1)
        pool = sentences(chance, 4_000)
        for path in self.edited:
            edit(self.tree / path, chance)
        for path in self.new:
            (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
            lines = min(1_500, int(chance.lognormvariate(4, 1.2)) + 3)
            (self.tree / path).write_text("".join(f"# {line}\n" for line in chance.choices(pool, k=lines)))
        for path in self.deleted:
            (self.tree / path).unlink()
        for path, to in self.moved:
            (self.tree / to).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / path).rename(self.tree / to)
        with contextlib.closing(sqlite3.connect(self.tree / "database/app.sqlite")) as base:
            count = base.execute("SELECT max(id) FROM message").fetchone()[0]
            for row in chance.sample(range(1, count + 1), ROWS):
                base.execute("UPDATE message SET text = ?, tokens = tokens + 1 WHERE id = ?", (chance.choice(pool), row))
            base.commit()

    def revert(self):
        """Takes the change back from the pristine tree; times of files are restored, those of folders are not."""
        for path in self.edited + self.deleted + [path for path, _ in self.moved] + ["database/app.sqlite"]:
            shutil.copy2(self.pristine / path, self.tree / path)
        for folder in ("git_checkout/new", "git_checkout/moved"):
            shutil.rmtree(self.tree / folder, ignore_errors=True)
