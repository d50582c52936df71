"""A demo's store and pusher in a process that is killed and started again, and what the Hub has of it afterwards."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import zip_longest

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from fer_hf.contributions import ContributionRepo, ContributionStore, Offer, Pusher, RepositoryFault
from fer_hf.contributions.entries import key_of

LABELS, REPO = ("happy", "sad"), "user/faces"


def picture(number: int) -> Image.Image:
    """One of many different small pictures."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (9, 8, 3), dtype=np.uint8))


def say(*words: object) -> None:
    """A line to standard output in one write, so that neither a kill nor another process cuts it."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(folder: str, numbers: list[int], withdrawals: list[str], *, mortal: bool) -> None:
    """Give pictures and withdraw some while a pusher runs; say what is acknowledged, and when the Hub has it all.

    A mortal process then waits for its end.
    """
    store = ContributionStore(folder, LABELS, REPO)
    pusher = Pusher(store, ContributionRepo(REPO), every_s=0.02, longest_s=0.1).start()
    for number, receipt in zip_longest(numbers, withdrawals):
        if number is not None:
            say("given", number, store.add([Offer(picture(number), "happy")], consent=True))
        if receipt is not None:
            store.withdraw(receipt)
            say("withdrawn", receipt)
    pusher.stop()
    last = Pusher(store, pusher.repo)
    for _ in range(100):
        try:
            last.push()
            break
        except RepositoryFault:
            time.sleep(0.05)
    else:
        raise TimeoutError("the Hub did not take everything")
    say("pushed")
    if mortal:
        signal.pause()


class Lives:
    """A process that has imported everything and forks a child for each life, so that a kill costs no import."""

    SCRIPT = """
import json, os, sys, time, types
from huggingface_hub.utils import _http
from tests.contribution_runs import say, work
_http.time = types.SimpleNamespace(sleep=lambda wait_s: time.sleep(wait_s / 100))  # before its own repetitions
for line in sys.stdin:
    child = os.fork()
    if not child:
        work(**json.loads(line))
        os._exit(0)
    say("child", child)
    say("status", os.waitpid(child, 0)[1])
"""

    def __init__(self, environment: dict[str, str]):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", self.SCRIPT], env=environment, **streams)
        self.begun = self.child = 0
        self.given: dict[int, str] = {}
        self.withdrawn: set[str] = set()

    def __enter__(self) -> "Lives":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def live(
        self, folder, numbers: list[int], withdrawals: list[str], *, mortal: bool, kill_at: int | None = None
    ) -> int:
        """The status with which a life ended.

        A mortal one is killed by whom ``killer`` was given to, once it has acknowledged ``kill_at`` entries, or at the
        latest when it has done everything.
        """
        acknowledged, self.child = 0, 0
        self.begun += 1
        kill = self.killer(self.begun)
        order = {"folder": str(folder), "numbers": numbers, "withdrawals": withdrawals, "mortal": mortal}
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
            if mortal and (word == "pushed" or (word == "given" and acknowledged == kill_at)):
                kill()
        raise EOFError("the process that forks has ended")

    def killer(self, life: int) -> Callable[[], None]:
        """What kills a life, the first of which is 1, from any thread; too late, it does nothing."""

        def kill() -> None:
            while self.begun < life or (self.begun == life and not self.child):
                time.sleep(0.001)
            if self.begun == life:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.child, signal.SIGKILL)

        return kill


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
    """Give pictures through many killed lives and Hub faults; afterwards each acknowledged one is there once.

    The seed decides when each life is killed and what goes wrong in it, not how its threads take turns.
    """
    rng = np.random.default_rng(seed)
    share = entries // (kills + 1)
    with Lives(os.environ | hub.environment(tmp_path / "home")) as lives:

        def due() -> list[str]:
            return [r for number, r in lives.given.items() if number % share == 0 and r not in lives.withdrawn]

        for life in range(1, kills + 1):
            numbers, kill_at = list(range((life - 1) * share, life * share)), None
            if rng.random() < 0.3:
                kill_at = int(rng.integers(1, share + 1))
            else:
                hub.fail(".", skip=int(rng.integers(25)), call=lives.killer(life), after=bool(rng.random() < 0.5))
            _go_wrong(hub, rng)
            status = lives.live(tmp_path / "store", numbers, due(), mortal=True, kill_at=kill_at)
            assert status == signal.SIGKILL
            hub.faults.clear()
        missing = range(kills * share, kills * share + entries - len(lives.given))
        for numbers in (list(missing), []):  # the second withdraws what the first gave
            _go_wrong(hub, rng)
            assert lives.live(tmp_path / "store", numbers, due(), mortal=False) == 0
        assert len(lives.given) == entries
        assert lives.withdrawn
        assert due() == []
    _check_hub(hub, lives, kills)


def _go_wrong(hub, rng: np.random.Generator) -> None:
    what = [{"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}, {"drop": True}][rng.integers(3)]
    hub.fail("POST .*/(commit|preupload)/", skip=int(rng.integers(4)), after=bool(rng.random() < 0.5), **what)


def _check_hub(hub, lives: Lives, kills: int) -> None:
    """What was acknowledged is there once, what was withdrawn is nowhere."""
    rows = on_hub(hub)
    there = {row["receipt"]: row["pixels"] for row in rows}
    doubled = len(rows) - len({row["pixels"] for row in rows})
    kept = {key_of(r): picture(number).tobytes() for number, r in lives.given.items() if r not in lives.withdrawn}
    lost = sum(there.get(key) != pixels for key, pixels in kept.items())
    unheard = len(there.keys() - kept.keys())  # on the disk, but killed before its giver heard of it
    print(
        f"{len(lives.given)} acknowledged, {kills} kills, {len(lives.withdrawn)} withdrawn, {len(there)} there: "
        f"{lost} lost, {doubled} doubled, {unheard} more that nobody had heard of"
    )
    assert (lost, doubled) == (0, 0)
    assert len(rows) == len(there)
    assert unheard <= kills
    assert [path for receipt in lives.withdrawn for path in traces(hub, receipt)] == []
