"""What is compared: each tool's words for saving, restoring, checking and collecting, with a repository and caches of its own.

Every tool runs with its own defaults, except that borg compresses with zstd, as all the others do. restic, rustic and bupstash
always encrypt; borg is run without encryption, which is its fastest.
"""
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from .dataset import cache
from .measure import Command, stored


def tools_path():
    return f"{cache() / 'tools/bin'}:{os.environ['PATH']}"


def find(program):
    return shutil.which(program, path=tools_path())


class Contestant:
    """One tool with a fresh repository in `folder`. A job that the tool does not have answers None."""

    name = program = None
    needs = "0"
    asks_version = ["--version"]

    def __init__(self, folder, program=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.program = str(program or find(self.program))
        self.repository = self.folder / "repository"
        # Nothing of the caller's own settings, caches or keys takes part.
        home = self.folder / "home"
        home.mkdir()
        self.environment = {"PATH": tools_path(), "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(home),
                            "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config"),
                            "XDG_STATE_HOME": str(home / "state"), "XDG_DATA_HOME": str(home / "data")} | self.settings()

    @classmethod
    def version(cls, program=None):
        """Returns the tool's version, or None where it is missing."""
        program = program or find(cls.program)
        if not program:
            return None
        answer = subprocess.run([program, *cls.asks_version], capture_output=True, text=True)
        found = re.search(r"\d+\.\d+(\.\d+)?", answer.stdout + answer.stderr)
        return found[0] if found else "unknown"

    def settings(self):
        return {}

    def call(self, *words, **options):
        return Command([self.program, *words], environment=self.environment, **options)

    def run(self, *words):
        """Runs what is not measured, and returns what it printed."""
        return subprocess.run([self.program, *map(str, words)], env=self.environment, check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True).stdout

    def init(self):
        """Makes the repository; not measured."""

    def save(self, tree):
        return None

    def saved(self, answer):
        """Takes what a save has printed."""

    def restore(self, tree, target):
        """Returns the command that restores the newest save of `tree`; `target` is there and empty."""
        return None

    def restored(self, tree, target):
        """Returns where the tree lies after a restore."""
        return target

    def check(self):
        return None

    def collect(self):
        """Returns the commands that forget all saves but the newest and free the space."""
        return []

    def stored(self):
        return stored(self.repository)


class Kiln(Contestant):
    name = program = "kiln"

    def __init__(self, folder, program=None):
        super().__init__(folder, program)
        self.revisions = []

    def settings(self):
        return {"XDG_RUNTIME_DIR": str(self.folder / "home"), "KILN_STORE": self.store()}

    def store(self):
        return str(self.folder / "repository")

    def kiln(self, *words):
        return self.call("--store", self.store(), *words)

    def save(self, tree, *options, name="bench"):
        return self.kiln("workspace", "save", tree, "--name", name, "--json", *options)

    def saved(self, answer):
        self.revisions.append(json.loads(answer)["revision"])

    def restore(self, tree, target, *options, revision=None):
        # A restore publishes by rename and wants a name that is not there yet.
        into = target if "--update" in options else self.restored(tree, target)
        return self.kiln("workspace", "restore", revision or self.revisions[-1], into, *options)

    def restored(self, tree, target):
        return Path(target) / "tree"

    def check(self):
        return self.kiln("store", "check", "--read-data")

    def collect(self):
        return [self.kiln("workspace", "prune", "bench", "--keep-last", "1", "--apply", "--quiet"),
                self.kiln("gc", "--grace", "0s", "--quiet")]

    def garbage(self):
        """Returns how many of the stored bytes nobody needs, as the plan of a further collection says."""
        return json.loads(self.run("--store", self.store(), "gc", "--dry-run", "--json"))["dead_bytes"]


class KilnOnS3(Kiln):
    """The same on a bucket: `bucket` has endpoint, region, name, key and secret."""

    def __init__(self, folder, program, bucket):
        self.bucket = bucket
        super().__init__(folder, program)

    def settings(self):
        return super().settings() | credentials(self.bucket)

    def store(self):
        bucket = self.bucket
        return f"s3://{bucket['name']}/kiln?endpoint={bucket['endpoint']}&region={bucket['region']}&path_style=true"

    def init(self):
        self.run("--store", self.store(), "store", "init")


class Restic(Contestant):
    name = program = "restic"
    needs = "0.18"
    asks_version = ["version"]

    def settings(self):
        return {"RESTIC_REPOSITORY": self.where(), "RESTIC_PASSWORD": "bench"}

    def where(self):
        return str(self.folder / "repository")

    def init(self):
        self.run("init", "--quiet")

    def save(self, tree):
        return self.call("backup", "--quiet", tree)

    def restore(self, tree, target):
        return self.call("restore", "--quiet", f"latest:{tree}", "--target", target)

    def check(self):
        return self.call("check", "--quiet", "--read-data")

    def collect(self):
        return [self.call("forget", "--quiet", "--keep-last", "1", "--prune")]


class ResticOnS3(Restic):
    def __init__(self, folder, program, bucket):
        self.bucket = bucket
        super().__init__(folder, program)

    def settings(self):
        return super().settings() | credentials(self.bucket)

    def where(self):
        return f"s3:{self.bucket['endpoint']}/{self.bucket['name']}/restic"


def credentials(bucket):
    return {"AWS_ACCESS_KEY_ID": bucket["key"], "AWS_SECRET_ACCESS_KEY": bucket["secret"], "AWS_REGION": bucket["region"],
            "AWS_DEFAULT_REGION": bucket["region"]}


class Rustic(Contestant):
    name = program = "rustic"

    def settings(self):
        return {"RUSTIC_REPOSITORY": str(self.folder / "repository"), "RUSTIC_PASSWORD": "bench", "RUSTIC_NO_PROGRESS": "true",
                "RUSTIC_LOG_LEVEL": "warn"}

    def init(self):
        self.run("init")

    def save(self, tree):
        return self.call("backup", tree)

    def restore(self, tree, target):
        return self.call("restore", f"latest:{tree}", target)

    def check(self):
        return self.call("check", "--read-data")

    def collect(self):
        # Without it two days pass before anything is deleted.
        return [self.call("forget", "--keep-last", "1", "--prune", "--instant-delete")]


class Borg(Contestant):
    name = program = "borg"
    saves = 0

    def settings(self):
        return {"BORG_REPO": str(self.folder / "repository"), "BORG_BASE_DIR": str(self.folder / "home"),
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def init(self):
        self.run("init", "--encryption", "none")

    def save(self, tree):
        self.saves += 1
        return self.call("create", "--compression", "zstd,3", f"::save-{self.saves}", ".", folder=str(tree))

    def restore(self, tree, target):
        return self.call("extract", f"::save-{self.saves}", folder=str(target))

    def check(self):
        return self.call("check", "--verify-data")

    def collect(self):
        return [self.call("prune", "--keep-last", "1"), self.call("compact", "--threshold", "5")]


class Bupstash(Contestant):
    name = program = "bupstash"
    asks_version = ["version"]

    def __init__(self, folder, program=None):
        super().__init__(folder, program)
        self.items = []

    def settings(self):
        home = self.folder / "home"
        return {"BUPSTASH_REPOSITORY": str(self.folder / "repository"), "BUPSTASH_KEY": str(home / "key"),
                "BUPSTASH_SEND_LOG": str(home / "send-log"), "BUPSTASH_QUERY_CACHE": str(home / "query-cache")}

    def init(self):
        self.run("init")
        self.run("new-key", "--output", self.folder / "home/key")

    def save(self, tree):
        return self.call("put", "--quiet", tree)

    def saved(self, answer):
        self.items.append(answer.strip())

    def restore(self, tree, target):
        return self.call("restore", "--quiet", "--ownership", "--into", target, f"id={self.items[-1]}")

    def collect(self):
        old, self.items = self.items[:-1], self.items[-1:]
        return [*(self.call("rm", "--quiet", f"id={item}") for item in old), self.call("gc", "--quiet")]


class TarZstd(Contestant):
    name, program = "tar+zstd", "zstd"

    def save(self, tree):
        self.repository.mkdir(exist_ok=True)
        line = f"tar -C {tree} -cf - . | zstd -q -f -3 -T2 -o {self.repository}/tree.tar.zst && sync {self.repository}/tree.tar.zst"
        return Command.pipe(line, environment=self.environment)

    def restore(self, tree, target):
        line = f"zstd -q -dc {self.repository}/tree.tar.zst | tar -C {target} -xpf -"
        return Command.pipe(line, environment=self.environment)


class Copy(Contestant):
    """The measure of a restore: what the kernel and the file system need for so many files."""

    name, program = "cp -a", "cp"

    def restore(self, tree, target):
        return self.call("-a", f"{tree}/.", target)


class Find(Contestant):
    """The measure of an unchanged save: looking at every file once."""

    name, program = "find", "find"

    def look(self, tree):
        return self.call(tree, "-printf", "%p %s %m %T@ %C@ %i\\n")


ALL = [Kiln, Restic, Rustic, Borg, Bupstash, TarZstd, Copy, Find]
BY_NAME = {contestant.name: contestant for contestant in ALL} | {"tar": TarZstd, "cp": Copy}


def older(version, than):
    """Tells whether a version is older than another: figures by figure."""
    def figures(text):
        return [int(figure) for figure in re.findall(r"\d+", text)]
    return figures(version) < figures(than)
