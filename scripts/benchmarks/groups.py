"""What is measured beside the main run, each by its name: within little memory, a million files, one large file, and S3.

A group answers with its figures, a sentence on what they mean, and how Kiln stands against its budgets.
"""
import contextlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import contestants, dataset, measure, report
from .figures import Figures
from .garage import Garage
from .say import say

LIMIT_BYTES = 256 * 1024 * 1024
LIMITED = "within 256 MiB"

# What stays free on the disk whatever is asked for.
MARGIN_BYTES = 4_000_000_000


@contextlib.contextmanager
def workplace(name):
    """Gives a folder on the disk and one in memory, and removes both afterwards."""
    disk = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=dataset.runs()))
    memory = Path(tempfile.mkdtemp(prefix="kiln-bench-", dir="/dev/shm"))
    try:
        yield disk, memory
    finally:
        measure.remove(memory)
        measure.remove_in_the_end(disk)


def chosen(tools, *names):
    return [(kind, program) for kind, program in tools if kind.name in names]


def shrunk(wanted, factor, folder):
    """Returns a size for which `factor` times as many bytes are free, and says where that is less than wanted."""
    free = shutil.disk_usage(folder).free - MARGIN_BYTES
    size = max(0, min(wanted, int(free / factor)))
    if size < wanted:
        say(f"the disk has room for {size / 1e9:.2f} GB instead of {wanted / 1e9:.2f} GB")
    return size


def saved(figures, tool, run, metric, tree, limit=None):
    """Saves and tells whether it went well."""
    answer = figures.take(tool, run, metric, [tool.save(tree)], limit=limit)
    if answer is not None:
        tool.saved(answer)
    return answer is not None


def restored(figures, tool, run, metric, tree, into, limit=None):
    """Restores into a fresh folder and compares names and sizes. The folder's space is given back, its inodes later."""
    target = Path(tempfile.mkdtemp(prefix="target-", dir=into))
    if figures.take(tool, run, metric, [tool.restore(tree, target)], limit=limit) is not None:
        mine, theirs = dataset.tally(tree), dataset.tally(tool.restored(tree, target))
        if mine != theirs:
            figures.fail(tool, run, metric, f"the tree differs: {theirs} instead of {mine}")
    if str(into).startswith("/dev/shm"):
        measure.remove(target)
    else:
        measure.empty(target)


def within(figures, tool, run, tree, disk):
    """Saves to a fresh repository, restores to the disk and checks, all within the limit. A restore to tmpfs would be charged."""
    limit = measure.MemoryLimit.make(LIMIT_BYTES)
    if limit is None:
        return
    try:
        if saved(figures, tool, run, f"save {LIMITED}", tree, limit):
            restored(figures, tool, run, f"restore {LIMITED}", tree, disk, limit)
            if tool.check():
                figures.take(tool, run, f"check {LIMITED}", [tool.check()], limit=limit)
    finally:
        limit.close()


def limit(tools, runs, scale):
    tree, facts = dataset.prepare()
    figures = Figures()
    with workplace("limit") as (disk, _):
        for kind, program in chosen(tools, "kiln", "restic"):
            tool = kind(disk / kind.name, program)
            tool.init()
            within(figures, tool, 0, tree, disk)
    figures.add_peaks()
    told = f"The workspace ({facts['files']:,} files, {facts['bytes'] / 1e9:.2f} GB) {LIMITED} of all memory, page cache included"
    return figures, told, report.judged(figures)


def million(tools, runs, scale):
    figures = Figures()
    with workplace("million") as (disk, memory):
        # A small file occupies a block of 4 KiB and an inode: in the tree, and in the restored one.
        count = shrunk(int(1_000_000 * scale) * 4_400, 2.2, disk) // 4_400
        folders = max(1, round(count ** 0.5))
        say(f"making {folders:,} folders of {folders:,} files")
        tree = disk / "tree"
        chance = random.Random(dataset.SEED)
        block = (" ".join(chance.choices(dataset.WORDS, k=20_000))).encode()
        for folder in range(folders):
            place = tree / f"{folder:04}"
            place.mkdir(parents=True)
            for file in range(folders):
                start = chance.randrange(len(block) - 400)
                with open(place / f"{file:04}.txt", "wb") as out:
                    out.write(b"%d %d " % (folder, file) + block[start:start + chance.randrange(20, 400)])
        # tmpfs takes a page and about a kilobyte for each.
        fits = folders**2 * 5_400 < 7_000_000_000 and folders**2 * 5_400 < available_memory() / 2
        for kind, program in chosen(tools, "kiln", "restic", "bupstash"):
            tool = kind(disk / kind.name, program)
            tool.init()
            if saved(figures, tool, 0, "save", tree):
                figures.add(tool.name, "stored", tool.stored())
                saved(figures, tool, 0, "unchanged", tree)
                restored(figures, tool, 0, f"restore to {'tmpfs' if fits else 'disk'}", tree, memory if fits else disk)
            if kind is contestants.Kiln:
                again = kind(disk / "within", program)
                again.init()
                within(figures, again, 0, tree, disk)
    figures.add_peaks()
    return figures, f"{folders**2:,} files of 20 to 400 bytes in {folders:,} folders", report.judged(figures, [report.PEAK])


# Revisions of one workspace each, of ten workspaces; a hundredth of a half of their files is changed from one to the next.
FLEET_WORKSPACES, FLEET_CHANGE = 10, 0.5
FLEET_CHUNKS = 10_000_000
# The plan of ten million chunks, in seconds.
PLAN = ("plan of 1,000 revisions", 60, None, None)


def fleet(tools, runs, scale):
    """Plans collections of generated stores, whose packs of files are as long as they say and empty."""
    root = Path(__file__).resolve().parent.parent.parent
    figures, told = Figures(), []
    first = FLEET_CHUNKS * scale / (1 + (1_000 // FLEET_WORKSPACES - 1) * FLEET_CHANGE / 100)
    for kind, program in chosen(tools, "kiln"):
        for revisions in (10, 100, 1_000):
            chunks = int(first * (1 + (revisions // FLEET_WORKSPACES - 1) * FLEET_CHANGE / 100))
            with workplace("fleet") as (disk, _):
                tool = kind(disk / "kiln", program)
                say(f"making a store of {revisions:,} revisions and {chunks:,} chunks")
                subprocess.run(["cargo", "bench", "--quiet", "--locked", "--bench", "fleet", "--", tool.store(),
                                "--revisions", str(revisions), "--chunks", str(chunks), "--workspaces", str(FLEET_WORKSPACES),
                                "--change", str(FLEET_CHANGE)], cwd=root, check=True, stdout=subprocess.DEVNULL)
                # The second time the index is in the host's cache, as it is where collections run every day.
                plan, of = [tool.kiln("gc", "--dry-run", "--json")], f"of {revisions:,} revisions"
                figures.take(tool, 0, f"first plan {of}", plan)
                answer = figures.take(tool, 0, f"plan {of}", plan)
                memory_limit = measure.MemoryLimit.make(LIMIT_BYTES)
                if memory_limit is None:
                    say("control groups cannot be used here: the plan within a limit of memory is left out")
                else:
                    try:
                        figures.take(tool, 0, f"plan {of} {LIMITED}", plan, limit=memory_limit)
                    finally:
                        memory_limit.close()
                if answer:
                    plan = json.loads(answer)
                    told.append(f"{plan['revisions']:,} revisions need {plan['chunks']:,} chunks, "
                                f"{plan['manifest_chunks']:,} of their manifests' chunks are distinct")
    figures.add_peaks()
    return figures, "; ".join(told), report.judged(figures, [PLAN, report.PEAK])


HOSTS, HOURS = 100, 24
# Of the index, between two collections.
SEGMENTS = ("segments at most", 64, None, None)


def hosts(tools, runs, scale):
    """Saves from many hosts, hour by hour and one after the other, and looks how the index grows until somebody collects."""
    figures, count = Figures(), max(2, int(HOSTS * scale))
    for kind, program in chosen(tools, "kiln"):
        with workplace("hosts") as (disk, _):
            tools_of = [kind(disk / f"host-{number}", program) for number in range(count)]
            store = disk / "store"
            for tool in tools_of:
                tool.store = lambda: str(store)
            chance = random.Random(dataset.SEED)
            for number in range(count):
                for file in range(40):
                    place = disk / f"tree-{number}" / f"{file // 8}"
                    place.mkdir(parents=True, exist_ok=True)
                    (place / f"{file}").write_bytes(chance.randbytes(2_000))
            say(f"{count} hosts save {HOURS} times each")
            most = 0
            for hour in range(HOURS):
                for number, tool in enumerate(tools_of):
                    for file in chance.sample(range(40), 3):
                        (disk / f"tree-{number}" / f"{file // 8}" / f"{file}").write_bytes(chance.randbytes(2_000))
                    metric = f"save in hour {hour + 1}"
                    command = tool.save(disk / f"tree-{number}", name=f"host-{number}")
                    if hour in (0, HOURS - 1):
                        figures.take(tool, 0, metric, [command], quiet=True)
                    else:
                        tool.run(*command.words[1:])
                    most = max(most, sum(1 for _ in (store / "idx").iterdir()))
            figures.add(kind.name, "segments at most", most)
            figures.add(kind.name, "stored index", sum(file.stat().st_size for file in (store / "idx").iterdir()))
            figures.take(tools_of[0], 0, "collect", [tools_of[0].kiln("gc", "--grace", "0s")])
            figures.add(kind.name, "segments after it", sum(1 for _ in (store / "idx").iterdir()))
    told = f"{count} hosts, {HOURS} saves each, 40 files of 2 kB of which 3 change"
    return figures, told, report.judged(figures, [SEGMENTS])


def available_memory():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def big_file(tools, runs, scale):
    figures = Figures()
    with workplace("big-file") as (disk, _):
        # The file, a repository of about 0.6 of it, and a restored one.
        size = shrunk(int(10_000_000_000 * scale), 2.8, disk) >> 21 << 21
        say(f"making a file of {size / 1e9:.2f} GB")
        tree = disk / "tree"
        tree.mkdir()
        chance = random.Random(dataset.SEED)
        pool = dataset.sentences(chance, 20_000)
        with open(tree / "big", "wb") as out:
            for _ in range(size >> 21):
                text = "\n".join(chance.choices(pool, k=16_000)).encode()
                out.write(text[: 1 << 20].ljust(1 << 20) + chance.randbytes(1 << 20))
        for kind, program in chosen(tools, "kiln", "restic"):
            tool = kind(disk / kind.name, program)
            tool.init()
            if saved(figures, tool, 0, "save", tree):
                figures.add(tool.name, "stored", tool.stored())
                with open(tree / "big", "r+b") as out:
                    out.seek(size // 3)
                    out.write(b"changed in the middle")
                saved(figures, tool, 0, "changed", tree)
                restored(figures, tool, 0, "restore to disk", tree, disk)
            measure.empty(disk / kind.name)
    figures.add_peaks()
    return figures, f"One file of {size / 1e9:.2f} GB, half of it compressible", report.judged(figures, [report.PEAK])


def s3(tools, runs, scale):
    """The workspace in a bucket, which Kiln and restic share, each under a prefix of its own."""
    figures = Figures()
    program = contestants.find("garage")
    kinds = {contestants.Kiln: contestants.KilnOnS3, contestants.Restic: contestants.ResticOnS3}
    rivals = [(kinds[kind], path) for kind, path in tools if kind in kinds]
    if not program:
        say("there is no garage: the comparison on S3 is left out")
        return figures, "S3: no Garage here", []
    pristine, _ = dataset.prepare()
    with workplace("s3") as (disk, memory):
        tree = disk / "tree"
        shutil.copytree(pristine, tree, symlinks=True)
        change = dataset.Change(tree, pristine)
        for run in range(runs):
            with Garage(program, disk / f"garage-{run}") as garage:
                bucket = garage.bucket("bench")
                order = rivals[run % 2:] + rivals[: run % 2]
                clients = [kind(disk / f"{kind.name}-{run}", path, bucket) for kind, path in order]
                for tool in clients:
                    tool.init()
                going = [tool for tool in clients if saved(figures, tool, run, "save", tree)]
                going = [tool for tool in going if saved(figures, tool, run, "unchanged", tree)]
                change.apply()
                for tool in going:
                    if saved(figures, tool, run, "changed", tree):
                        restored(figures, tool, run, "restore", tree, memory)
                change.revert()
            measure.empty(disk / f"garage-{run}")
    figures.add_peaks()
    budgets = [("save", 1 / 3, "restic", "save"), ("restore", 1 / 2, "restic", "restore"), report.PEAK]
    told = "The workspace in a bucket of a Garage of one node on loopback, which shares the processor"
    return figures, told, report.judged(figures, budgets)


GROUPS = {"limit": limit, "million": million, "big-file": big_file, "s3": s3, "fleet": fleet, "hosts": hosts}
