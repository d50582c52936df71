"""Twenty thousand pictures, killed five times: each is on the Hub once, uploaded once, in bounded memory."""

import os
import re
import signal
import threading
from pathlib import Path

from tests.data_folders import picture
from tests.pictures import encode
from tests.test_push_dataset import QUICK, Nursery, pixels, rows

PICTURES = 20_000
MAX_MEMORY_MB = 1000
"""Of which the libraries are 500 before a row is read."""


class Watcher(threading.Thread):
    """Looks at the child twenty times a second: its own memory (not files mapped into it), and whether to kill it."""

    def __init__(self, nursery: Nursery, home: Path):
        super().__init__(daemon=True)
        self.nursery, self.home = nursery, home
        self.peak_mb, self.kill_at, self.over = 0.0, "", threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            status = Path(f"/proc/{self.nursery.child}/status")
            if not self.nursery.child or not status.exists():
                continue
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
            self.peak_mb = max(self.peak_mb, int(found[1]) / 1000 if found else 0)
            if self.kill_at and next(self.home.glob(self.kill_at), None):
                self.kill_at = ""
                self.nursery.kill()


def test_twenty_thousand_pictures_five_kills(hub, tmp_path):
    for index in range(PICTURES):
        file = tmp_path / "faces" / ("happy", "sad", "surprise")[index % 3] / f"{index:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(picture(index), "JPEG", quality=95))
    command = ["--source", str(tmp_path / "faces"), "--repo-id", "user/faces", *QUICK, "--shard-mb", "2"]
    home = tmp_path / "home"
    with Nursery(os.environ | hub.environment(home)) as nursery:
        watcher = Watcher(nursery, home)
        watcher.start()
        for place in ("datasets/fer_hf/.reading-*/*.arrow", "fer_hf_push/*/files-*/data/train-00003-*"):
            watcher.kill_at = place
            assert nursery.run(command) == signal.SIGKILL
        for pattern, skip in (("^PUT /lfs/", 0), ("^PUT /lfs/", 7), ("POST .*/commit/", 0)):
            hub.fail(pattern, skip=skip, call=nursery.kill)
            assert nursery.run(command) == signal.SIGKILL
        assert nursery.run(command) == 0
        watcher.over.set()
    published = [row for split in rows().values() for row in split]
    assert len(published) == PICTURES
    sent = {pixels(file.read_bytes()) for file in (tmp_path / "faces").rglob("*.jpg")}
    assert len(sent) == PICTURES
    assert {pixels(row["image"]["bytes"]) for row in published} == sent
    stored = [request.path for request in hub.asked("^PUT /lfs/") if request.status == 200]
    assert len(stored) == len(set(stored)) > 10
    print(f"peak memory {watcher.peak_mb:.0f} MB")
    assert 100 < watcher.peak_mb < MAX_MEMORY_MB
