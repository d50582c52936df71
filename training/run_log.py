"""The log of a run, ``log.jsonl``: one JSON object an epoch."""

import json
from pathlib import Path


def read_log(path: Path) -> list[dict]:
    """The epochs of a log, in order; a last line that was cut short, as by a full disk, is no epoch.

    Raises ValueError that names the file where any other line is no JSON.
    """
    epochs, lines = [], path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            epochs.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}, is no JSON ({error}); mend or delete that line") from None
    return epochs
