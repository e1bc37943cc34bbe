"""Measures `kiln build` beside `docker build`, in turn.

Both sides build the same generated context on the same engine with the same builder.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .say import say

BASE = "debian:bookworm-slim"


def docker_client():
    """Returns a docker client that can build with BuildKit: by its plug-in, or because it is old enough to have it built in."""
    for client in ("docker", "/usr/bin/docker"):
        version = subprocess.run([client, "version", "--format", "{{.Client.Version}}"], capture_output=True, text=True)
        plugin = subprocess.run([client, "buildx", "version"], capture_output=True)
        if version.returncode == 0 and (plugin.returncode == 0 or version.stdout.startswith("20.")):
            return client
    sys.exit("bench: no docker client can build with BuildKit; install docker-buildx")


def run(command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


class Bench:
    def __init__(self, kiln, work, runs):
        self.kiln, self.work, self.runs = kiln, work, runs
        self.environment = {**os.environ, "KILN_STORE": str(work / "store"), "XDG_STATE_HOME": str(work / "state")}
        self.rows = []
        self.docker = docker_client()

    def kiln_build(self, folder, *options):
        started = time.monotonic()
        answer = run([self.kiln, "build", str(folder), "--json", "--log", "json", "--skip-checks", *options], env=self.environment)
        seconds = time.monotonic() - started
        record = json.loads(answer.stdout)
        # Sizes and the list of packages are what `docker build` does not do; they are reported apart.
        beside = 0 if record["reused"] else record["timings"]["inventory_ms"] / 1000
        return seconds - beside, record, answer.stderr

    def docker_build(self, folder, *options):
        buildkit = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        started = time.monotonic()
        run([self.docker, "build", "--quiet", "--tag", "kiln-bench:docker", *options, str(folder)], env=buildkit)
        return time.monotonic() - started

    def remove(self, record):
        run([self.kiln, "snapshot", "remove", f"{record['name']}@{record['id']}"], env=self.environment)

    def row(self, name, ours, theirs, budget, unit="s"):
        median, best = statistics.median(ours), min(ours)
        row = {"what": name, "kiln_median": median, "kiln_best": best, "unit": unit, "budget": budget, "runs": len(ours)}
        if theirs:
            row |= {"docker_median": statistics.median(theirs), "docker_best": min(theirs)}
            row["ratio"] = median / row["docker_median"]
            row["difference"] = median - row["docker_median"]
        self.rows.append(row)
        say(f"{name}: {row}")
        return row


def context(folder, files, bytes_each, dockerfile):
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    block = os.urandom(min(bytes_each, 1 << 20))
    for n in range(files):
        with open(folder / "files" / f"{n:05}", "wb") as out:
            left = bytes_each
            while left > 0:
                left -= out.write(n.to_bytes(4, "big") + block[4:left] if left < len(block) else block)
    (folder / "Dockerfile").write_text(dockerfile)
    return folder


STEPS = f"""FROM {BASE}
COPY files /srv/files
RUN find /srv/files -type f | sort | xargs sha256sum > /srv/sums
RUN head -c 200000000 /dev/zero | tr '\\0' 'k' > /srv/large && sha256sum /srv/large
RUN for n in $(seq 1 300); do echo "line $n"; mkdir -p /srv/d/$n && echo $n > /srv/d/$n/f; done
RUN cp -r /srv/files /srv/copy && dpkg-query -W > /srv/packages
"""


def uncached(bench):
    folder = context(bench.work / "ten", 500, 20_000, STEPS)
    ours, theirs = [], []
    for n in range(bench.runs + 1):
        seconds, record, _ = bench.kiln_build(folder, "--rebuild")
        other = bench.docker_build(folder, "--no-cache")
        bench.remove(record)
        if n:  # the first pair warms both sides
            ours.append(seconds)
            theirs.append(other)
    bench.row("uncached build", ours, theirs, "ratio <= 1.05")


def cached(bench):
    folder = bench.work / "ten"
    ours, theirs = [], []
    for n in range(3 * bench.runs + 1):
        seconds, record, _ = bench.kiln_build(folder)
        other = bench.docker_build(folder)
        bench.remove(record)
        if n:
            ours.append(seconds)
            theirs.append(other)
    bench.row("cached build, 10 MB context", ours, theirs, "difference <= 0.2 s")


def reused(bench):
    folder = bench.work / "ten"
    _, record, _ = bench.kiln_build(folder)
    times = []
    for _ in range(40):
        seconds, again, _ = bench.kiln_build(folder)
        assert again["reused"], again
        times.append(seconds)
    bench.remove(record)
    row = bench.row("reused snapshot", times, None, "p95 <= 0.1 s")
    row["kiln_p95"] = sorted(times)[int(len(times) * 0.95) - 1]


def large_context(bench):
    folder = context(bench.work / "large", 400, 2_000_000, f"FROM {BASE}\nCOPY files/00000 /srv/\n")
    command = [bench.kiln, "build", str(folder), "--json", "--log", "json", "--skip-checks", "--max-context", "2GiB", "--rebuild"]
    child = subprocess.Popen(command, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    answer, peak = "", 0
    status = Path(f"/proc/{child.pid}/status")
    while child.poll() is None:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            peak = max(peak, int(found[1])) if found else peak
        except OSError:
            pass
        time.sleep(0.02)
    answer = child.stdout.read()
    assert child.returncode == 0, answer
    bench.remove(json.loads(answer))
    shutil.rmtree(folder)
    bench.row("memory with an 800 MB context", [peak / 1024], None, "<= 64 MiB", "MiB")


def latency(bench):
    lines = "RUN for n in $(seq 1 200); do date +%s.%N; sleep 0.02; done\n"
    folder = context(bench.work / "latency", 1, 10, f"FROM {BASE}\n{lines}")
    command = [bench.kiln, "build", str(folder), "--json", "--log", "plain", "--skip-checks", "--rebuild"]
    child = subprocess.Popen(command, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    late = []
    for line in child.stderr:
        seen = time.time()
        found = re.search(r"(\d{10}\.\d{9})\s*$", line)
        if found:
            late.append(seen - float(found[1]))
    assert child.wait() == 0
    bench.remove(json.loads(child.stdout.read()))
    assert len(late) == 200, len(late)
    row = bench.row("log line shown after it was printed", late, None, "p99 <= 0.1 s")
    row["kiln_p99"] = sorted(late)[int(len(late) * 0.99) - 1]


def table(rows):
    print("| what | Kiln | `docker build` | ratio | budget |")
    print("|---|---|---|---|---|")
    for row in rows:
        unit = row["unit"]
        ours = f"{row['kiln_median']:.3g} {unit}"
        for tail in ("kiln_p95", "kiln_p99"):
            if tail in row:
                ours = f"{row[tail]:.3f} {unit} ({tail[5:]})"
        theirs = f"{row['docker_median']:.3g} {unit}" if "docker_median" in row else "–"
        ratio = f"{row['ratio']:.2f} ({row['difference']:+.2f} s)" if "ratio" in row else "–"
        print(f"| {row['what']} | {ours} | {theirs} | {ratio} | {row['budget'].replace('<=', '≤')} |")


def bench(kiln, runs):
    """Measures and returns the rows of the table."""
    work = Path(tempfile.mkdtemp(prefix="kiln-bench-"))
    bench = Bench(str(kiln), work, runs)
    try:
        for measure in (uncached, cached, reused, large_context, latency):
            say(f"== {measure.__name__}")
            measure(bench)
    finally:
        subprocess.run(["docker", "image", "rm", "kiln-bench:docker"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(work, ignore_errors=True)
    return bench.rows


def engine():
    """Returns the version of the Docker Engine."""
    return run(["docker", "version", "--format", "{{.Server.Version}}"]).stdout.strip()
