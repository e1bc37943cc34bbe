"""Runs a Garage of one node on loopback, for as long as a comparison takes."""
import contextlib
import secrets
import socket
import subprocess
import time
from pathlib import Path

REGION = "garage"

CONFIGURATION = """metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"

[s3_api]
s3_region = "{region}"
api_bind_addr = "127.0.0.1:{s3}"
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


class Garage:
    """A node with fresh keys in `folder`; a context manager that stops it in the end. All settings but these are its defaults."""

    def __init__(self, program, folder):
        self.program, self.folder = program, Path(folder)
        self.folder.mkdir(parents=True)
        rpc, self.port = free_ports(2)
        self.configuration = self.folder / "garage.toml"
        self.configuration.touch(mode=0o600)
        self.configuration.write_text(CONFIGURATION.format(folder=self.folder, rpc=rpc, s3=self.port, region=REGION,
                                                           secret=secrets.token_hex(32)))
        self.key, self.secret = f"GK{secrets.token_hex(12)}", secrets.token_hex(32)

    def ask(self, *words):
        answer = subprocess.run([self.program, "-c", self.configuration, *words], capture_output=True, text=True)
        if answer.returncode:
            raise RuntimeError(f"garage {' '.join(words[:2])}: {answer.stderr.strip()[-500:]}")
        return answer.stdout.strip()

    def __enter__(self):
        with open(self.folder / "log", "w") as log:
            self.server = subprocess.Popen([self.program, "-c", self.configuration, "server"], stdin=subprocess.DEVNULL,
                                           stdout=log, stderr=log, start_new_session=True)
        try:
            self.wait()
            node = self.ask("node", "id", "--quiet").partition("@")[0]
            self.ask("layout", "assign", "--zone", "here", "--capacity", "100GB", node)
            self.ask("layout", "apply", "--version", "1")
            self.ask("key", "import", "--yes", "-n", "bench", self.key, self.secret)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self):
        until = time.monotonic() + 30
        while True:
            try:
                return self.ask("status")
            except RuntimeError:
                if self.server.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"Garage does not start: {(self.folder / 'log').read_text()[-1000:]}") from None
                time.sleep(0.2)

    def bucket(self, name):
        """Makes a bucket and returns what a client needs to use it."""
        self.ask("bucket", "create", name)
        self.ask("bucket", "allow", "--read", "--write", "--owner", name, "--key", self.key)
        return {"name": name, "endpoint": f"http://127.0.0.1:{self.port}", "region": REGION, "key": self.key, "secret": self.secret}

    def __exit__(self, *_):
        self.server.terminate()
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
