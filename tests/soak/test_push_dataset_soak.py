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
"""Of a process that has 500 MB of libraries in it before it reads a row."""


def watch_memory(nursery: Nursery, over: threading.Event, peaks_mb: list[float]) -> None:
    """Adds the memory of the child's own (not of files that are mapped into it), twenty times a second."""
    while not over.wait(0.05):
        status = Path(f"/proc/{nursery.child}/status")
        if nursery.child and status.exists():
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
            peaks_mb.append(int(found[1]) / 1000 if found else 0)


def test_twenty_thousand_pictures_five_kills(hub, tmp_path):
    for index in range(PICTURES):
        file = tmp_path / "faces" / ("happy", "sad", "surprise")[index % 3] / f"{index:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(picture(index), "JPEG", quality=95))
    command = ["--source", str(tmp_path / "faces"), "--repo-id", "user/faces", *QUICK, "--shard-mb", "2"]
    over, peaks_mb = threading.Event(), [0.0]
    with Nursery(os.environ | hub.environment(tmp_path / "home")) as nursery:
        watcher = threading.Thread(target=watch_memory, args=(nursery, over, peaks_mb))
        watcher.start()
        for delay_s in (3, 20):  # while it reads, and later
            assert nursery.run(command, kill_after_s=delay_s) == signal.SIGKILL
        for pattern, skip in (("^PUT /lfs/", 0), ("^PUT /lfs/", 7), ("POST .*/commit/", 0)):
            hub.fail(pattern, skip=skip, call=nursery.kill)
            assert nursery.run(command) == signal.SIGKILL
        assert nursery.run(command) == 0
        over.set()
        watcher.join()
    published = [row for split in rows().values() for row in split]
    assert len(published) == PICTURES
    sent = {pixels(file.read_bytes()) for file in (tmp_path / "faces").rglob("*.jpg")}
    assert len(sent) == PICTURES
    assert {pixels(row["image"]["bytes"]) for row in published} == sent
    stored = [request.path for request in hub.asked("^PUT /lfs/") if request.status == 200]
    assert len(stored) == len(set(stored)) > 10
    print(f"peak memory {max(peaks_mb):.0f} MB")
    assert 100 < max(peaks_mb) < MAX_MEMORY_MB
