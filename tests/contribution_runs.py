"""A demo's store and pusher in a process that is killed and started again, and what the Hub has of it afterwards."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from fer_hf.contributions import ContributionRepo, ContributionStore, Offer, Pusher
from fer_hf.contributions.entries import key_of

LABELS, REPO = ("happy", "sad"), "user/faces"


def picture(number: int) -> Image.Image:
    """One of many different small pictures."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (9, 8, 3), dtype=np.uint8))


def work(folder: str, numbers: list[int], withdrawals: list[str]) -> None:
    """Give pictures and withdraw some while a pusher runs, say what is acknowledged, end when the Hub has it all."""
    store = ContributionStore(folder, LABELS, REPO)
    pusher = Pusher(store, ContributionRepo(REPO), every_s=0.02, longest_s=0.1).start()
    for number in numbers:
        print("given", number, store.add([Offer(picture(number), "happy")], consent=True), flush=True)
        if withdrawals:
            receipt = withdrawals.pop()
            store.withdraw(receipt)
            print("withdrawn", receipt, flush=True)
    pusher.stop()
    last = Pusher(store, pusher.repo)
    for _ in range(100):
        try:
            return last.push()
        except ValueError:
            time.sleep(0.05)
    raise TimeoutError("the Hub did not take everything")


class Lives:
    """A process that has imported everything and forks a child for each life, so that a kill costs no import."""

    SCRIPT = """
import json, os, sys
from tests.contribution_runs import work
for line in sys.stdin:
    child = os.fork()
    if not child:
        work(**json.loads(line))
        os._exit(0)
    print("child", child, flush=True)
    print("status", os.waitpid(child, 0)[1], flush=True)
"""

    def __init__(self, environment: dict[str, str]):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", self.SCRIPT], env=environment, **streams)
        self.child = 0
        self.given: dict[int, str] = {}
        self.withdrawn: set[str] = set()

    def __enter__(self) -> "Lives":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def live(self, folder, numbers: list[int], withdrawals: list[str], kill_at: int | None = None) -> int:
        """The status with which a life ended; it is killed once it has acknowledged so many."""
        self.child = acknowledged = 0
        order = {"folder": str(folder), "numbers": numbers, "withdrawals": withdrawals}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            word, *rest = line.split()
            if word == "child":
                self.child = int(rest[0])
            elif word == "status":
                return int(rest[0])
            elif word == "given":
                self.given[int(rest[0])] = rest[1]
                acknowledged += 1
            elif word == "withdrawn":
                self.withdrawn.add(rest[0])
            if self.child and kill_at is not None and acknowledged >= kill_at:
                self.kill()
                kill_at = None
        raise EOFError("the process that forks has ended")

    def kill(self) -> None:
        while not self.child:
            time.sleep(0.001)
        os.kill(self.child, signal.SIGKILL)


def on_hub(hub, repo_id: str = REPO, revision: str = "main") -> list[dict]:
    """Every row of every contribution in the newest commit, with the pixels of its picture."""
    repo = hub.store.get("dataset", repo_id)
    found = []
    for path, file in repo.files(revision).items():
        if path.endswith(".parquet"):
            for row in pq.read_table(repo.content(file)).to_pylist():
                assert path == f"data/{row['receipt'][:2]}/{row['receipt']}.parquet"
                pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).tobytes()
                found.append(row | {"pixels": pixels})
    return found


def traces(hub, receipt: str, repo_id: str = REPO) -> list[str]:
    """Files of the repository, with all its history, that hold or name a contribution."""
    key = key_of(receipt)
    folder = hub.store.get("dataset", repo_id).folder
    return [str(path) for path in folder.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]


def give_under_fire(hub, tmp_path, *, entries: int, kills: int, seed: int) -> None:
    """Give pictures through many killed lives and Hub faults; afterwards each acknowledged one is there once."""
    rng = np.random.default_rng(seed)
    share = entries // (kills + 1)
    with Lives(os.environ | hub.environment(tmp_path / "home")) as lives:
        number, killed, due = 0, 0, []
        while len(lives.given) < entries:
            numbers = list(range(number, number + min(share, entries - len(lives.given))))
            number = numbers[-1] + 1
            kill_at = None
            if killed < kills and rng.random() < 0.3:
                kill_at = int(rng.integers(1, len(numbers) + 1))
            elif killed < kills:
                hub.fail(".", skip=int(rng.integers(15)), call=lives.kill, after=bool(rng.random() < 0.5))
            what = [{"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}, {"drop": True}][rng.integers(3)]
            hub.fail("POST .*/(commit|preupload)/", skip=int(rng.integers(4)), after=bool(rng.random() < 0.5), **what)
            status = lives.live(tmp_path / "store", numbers, [*due], kill_at)
            assert status in (0, signal.SIGKILL)
            killed += status == signal.SIGKILL
            hub.faults.clear()
            gone = lives.withdrawn
            due = [receipt for receipt in lives.given.values() if receipt not in gone and key_of(receipt)[0] == "0"]
        assert lives.live(tmp_path / "store", [number], [], None) == 0
    assert killed == kills
    assert len(lives.given) == entries + 1
    assert lives.withdrawn
    rows = on_hub(hub)
    assert len({row["pixels"] for row in rows}) == len(rows)
    there = [row["receipt"] for row in rows]
    kept = {n: receipt for n, receipt in lives.given.items() if receipt not in lives.withdrawn}
    by_key = {row["receipt"]: row["pixels"] for row in rows}
    for number, receipt in kept.items():
        assert there.count(key_of(receipt)) == 1
        assert by_key[key_of(receipt)] == picture(number).tobytes()
    assert not {key_of(receipt) for receipt in lives.withdrawn} & set(there)
    assert [path for receipt in lives.withdrawn for path in traces(hub, receipt)] == []
    # Given, but killed before its giver heard of it: there at most once as well, or withdrawn by nobody.
    assert len(there) <= len(kept) + kills
    print(f"{len(lives.given)} acknowledged, {killed} kills, {len(lives.withdrawn)} withdrawn, {len(there)} there")
