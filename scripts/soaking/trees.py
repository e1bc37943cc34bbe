"""Small trees that change, share contents with one another, and go back to what they were; and their digests."""
import hashlib
import os
import random
import shutil
import stat
from pathlib import Path

# So many contents are everybody's: what one workspace saves another one has saved before.
SHARED = 160
FILES, FOLDERS = 36, 6
# The larger file is made of blocks, a few of which are changed at a time.
BLOCKS, BLOCK_BYTES = 6, 160_000
# How many earlier states a tree can go back to.
REMEMBERED = 40


def content(seed):
    """Returns the bytes that a seed stands for: half of all contents can be compressed to a half."""
    source = random.Random(seed)
    size = 500 + seed % 20_000
    return source.randbytes(size // 2).hex().encode() if seed % 2 else source.randbytes(size)


def block(seed):
    return random.Random(f"block {seed}").randbytes(BLOCK_BYTES)


class Tree:
    """A folder that is always in one of the states that it remembers: what stands at each path, by kind, mode and seeds."""

    def __init__(self, folder, source):
        self.folder, self.random = Path(folder), source
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        self.now, self.earlier = {}, []
        state = {f"folder-{number}": ("folder", source.choice([0o755, 0o700, 0o775]), ()) for number in range(FOLDERS)}
        for number in range(FILES):
            state[self.path(number)] = self.file()
        state["large"] = ("blocks", 0o644, tuple(source.randrange(SHARED) for _ in range(BLOCKS)))
        self.become(state)

    def path(self, number):
        return f"folder-{number % FOLDERS}/file-{number}"

    def file(self):
        seed = self.random.randrange(SHARED) if self.random.random() < 0.6 else self.random.getrandbits(40)
        return ("file", self.random.choice([0o644, 0o600, 0o755]), (seed,))

    def change(self):
        """Changes a few paths, or goes back to an earlier state; sometimes nothing changes at all."""
        luck = self.random.random()
        if luck < 0.2 and self.earlier:
            return self.become(self.random.choice(self.earlier))
        if luck < 0.25:
            return None
        state = dict(self.now)
        for _ in range(self.random.randint(1, 6)):
            self.change_one(state)
        if self.random.random() < 0.5:
            seeds = list(state["large"][2])
            seeds[self.random.randrange(BLOCKS)] = self.random.choice([self.random.randrange(SHARED), self.random.getrandbits(40)])
            state["large"] = ("blocks", 0o644, tuple(seeds))
        return self.become(state)

    def change_one(self, state):
        path = self.path(self.random.randrange(FILES + 8))
        what = self.random.random()
        if what < 0.55 or path not in state:
            state[path] = self.file()
        elif what < 0.7:
            del state[path]
        elif what < 0.8:
            state[path] = ("link", 0o777, (f"../{self.path(self.random.randrange(FILES))}",))
        elif what < 0.9 and state[path][0] == "file":
            state[path] = ("file", self.random.choice([0o640, 0o711, 0o400]), state[path][2])
        else:
            state[f"{path}-moved"] = state.pop(path)

    def become(self, state):
        for path in sorted(self.now.keys() - state.keys(), reverse=True):
            self.remove(path)
        for path in sorted(path for path in state if state[path] != self.now.get(path)):
            self.write(path, *state[path])
        self.earlier = [*self.earlier, state][-REMEMBERED:]
        self.now = state

    def remove(self, path):
        if self.now[path][0] == "folder":
            shutil.rmtree(self.folder / path)
        else:
            (self.folder / path).unlink()

    def write(self, path, kind, mode, what):
        place = self.folder / path
        if kind == "folder":
            place.mkdir(exist_ok=True)
            place.chmod(mode)
            return
        # As editors do it, a new file under the old name; else the old one is written in place.
        if self.random.random() < 0.5 or place.is_symlink() or kind == "link" or not os.access(place, os.W_OK):
            place.unlink(missing_ok=True)
        if kind == "link":
            place.symlink_to(what[0])
            return
        place.write_bytes(b"".join(map(block, what)) if kind == "blocks" else content(what[0]))
        place.chmod(mode)

    def digest(self):
        return digest(self.folder)


def digest(folder):
    """Returns a digest of what a tree holds: names, kinds, modes, contents and targets."""
    result = hashlib.sha256()
    below = [Path(folder)]
    while below:
        path = below.pop()
        status = path.lstat()
        relative = path.relative_to(folder)
        if stat.S_ISLNK(status.st_mode):
            what = os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            what = ""
            below += sorted(path.iterdir())
        else:
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        result.update(f"{relative}\0{status.st_mode:o}\0{what}\0".encode())
    return result.hexdigest()
