"""Files of JSON lines that only grow: a line is on the disk once it is appended, a torn one costs only itself."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path


def append_lines(path: Path, lines: Sequence[dict]) -> None:
    """Append all, and return once they are on the disk, or raise and leave none of them.

    Callers see to it that one writes at a time.
    """
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        # A crash cut the last line short; it was never acknowledged.
        left = memoryview((b"\n" if before and not _ends_with_newline(path) else b"") + text.encode())
        try:
            while left:  # a disk that fills takes a part
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(before)
            raise
    fsync_folder(path.parent)


def read_lines(path: Path) -> list[dict]:
    """Every whole line, in order; none where there is no file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text("utf-8-sig", errors="replace").splitlines():
        # Only a write that was cut short leaves text that does not parse, and that one was never acknowledged.
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


def fsync_folder(folder: Path) -> None:
    """Return once the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
