"""Sends a local store's contributions to the Hub in the background, and carries withdrawals out there."""

import contextlib
import fcntl
import logging
import threading
from collections.abc import Iterator, Sequence

from .log import append_lines, read_lines
from .repository import ContributionRepo, RepositoryFault
from .store import ContributionStore

BATCH_FILES, BATCH_BYTES = 100, 32 * 10**6
"""Of one commit."""

logger = logging.getLogger(__name__)


class Pusher:
    """Every ``every_s`` seconds, withdrawals first and then what is new, until the Hub has confirmed all.

    What was confirmed is noted in ``hub.jsonl`` beside the store. That saves asking again and is no more: without the
    file, or with notes that a kill has cost, the Hub is asked which contributions it has. After faults it waits
    longer, up to ``longest_s``, and never less than the Hub asks for.
    """

    def __init__(
        self, store: ContributionStore, repo: ContributionRepo, *, every_s: float = 60, longest_s: float = 1800
    ) -> None:
        self.store, self.repo, self.every_s, self.longest_s = store, repo, every_s, longest_s
        self._notes = store.folder / "hub.jsonl"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fer-contributions", daemon=True)
        self._told: set[str] = set()

    def start(self) -> "Pusher":
        """Begin, in a thread of its own; what waits from before goes at once."""
        if others := self._elsewhere():
            logger.warning(
                "Contributions were sent to %s before; what is withdrawn from now on stays there until this folder is "
                "run with that data set again",
                ", ".join(others),
            )
        self._thread.start()
        return self

    def stop(self) -> None:
        """End after the commit that is under way; what is left goes when the store is next pushed."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def push(self) -> None:
        """One round: return once the Hub has, or no longer has, all it should. Raises RepositoryFault or OSError.

        Where another process pushes the same store at the moment, it is left to that one.
        """
        with self._alone() as alone:
            while alone and not self._stop.is_set() and (self._remove_some() or self._add_some()):
                pass

    def wait_s(self, faults: int, fault: Exception | None = None) -> float:
        """Seconds until the next round, after so many faults in a row."""
        asked = getattr(fault, "retry_after_s", None) or 0
        return max(min(self.every_s * 2**faults, self.longest_s), asked)

    def _run(self) -> None:
        faults, wait_s = 0, 0.0
        while not self._stop.wait(wait_s):
            try:
                self.push()
            except (RepositoryFault, OSError) as fault:
                faults += 1
                wait_s = self.wait_s(faults, fault)
                logger.warning("Contributions wait here, next try in %.0f seconds: %s", wait_s, fault)
            else:
                faults, wait_s = 0, self.every_s

    def _remove_some(self) -> bool:
        done = self._noted("removed")
        due = {key: sha256 for key, sha256 in self.store.withdrawn().items() if key not in done}
        keys = list(due)[:BATCH_FILES]
        if keys:
            self.repo.remove({key: due[key] for key in keys})
            self._note("removed", keys)
        return bool(keys)

    def _add_some(self) -> bool:
        done = self._noted("sent")
        files, size = {}, 0
        for key, entries in self.store.contributions().items():
            if key in done:
                continue
            try:
                data = self.store.parquet(entries)
            except OSError as fault:  # the others must not wait for it; the next round tries it again
                if key not in self._told and key not in self.store.withdrawn():
                    logger.warning("A contribution is passed by: %s", fault)
                    self._told.add(key)
                continue
            if files and (len(files) == BATCH_FILES or size + len(data) > BATCH_BYTES):
                break
            files[key], size = data, size + len(data)
        if files:
            self.repo.add(files)
            self._note("sent", list(files))
        return bool(files)

    def _elsewhere(self) -> list[str]:
        """Other data sets that something was sent to before, which this one cannot remove it from."""
        notes = read_lines(self._notes)
        return sorted({note["repo"] for note in notes if note["what"] == "sent"} - {self.repo.id})

    def _note(self, what: str, keys: Sequence[str]) -> None:
        append_lines(self._notes, [{"what": what, "repo": self.repo.id, "receipts": list(keys)}])

    def _noted(self, what: str) -> set[str]:
        notes = (note for note in read_lines(self._notes) if note["what"] == what and note["repo"] == self.repo.id)
        return {key for note in notes for key in note["receipts"]}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        with (self.store.folder / ".pushing").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
