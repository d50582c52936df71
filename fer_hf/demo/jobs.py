"""Work that takes longer than a visitor should stare at a page: started, watched, cancelled, fetched once."""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from fer_hf.demo.calls import REFUSALS
from fer_hf.demo.limits import Held, Refused


class Cancelled(Exception):
    """Raised inside the work when its visitor no longer wants it."""


@dataclass
class Progress:
    """How far a piece of work is; the work calls ``step``, which raises Cancelled once it has been called off."""

    done: int = 0
    total: int = 0
    wanted_at: float = field(default_factory=time.monotonic)
    called_off: bool = False

    def step(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self.called_off:
            raise Cancelled


Work = Callable[[Progress], dict]


class Jobs:
    """A few long pieces of work at a time for all visitors.

    A job whose page has not asked for it for ``forget_after_s`` is called off, and its result is dropped: the visitor
    has left. Ids are random, so nobody can guess another's.
    """

    def __init__(self, running: int = 1, waiting: int = 8, forget_after_s: float = 30.0) -> None:
        self.capacity, self.forget_after_s = running + waiting, forget_after_s
        self._workers = ThreadPoolExecutor(running, thread_name_prefix="fer-job")
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}

    def start(self, work: Work, undo: Callable[[dict], object] | None = None) -> str:
        """The id of the work, which waits for its turn. Raises Refused when too much waits already.

        ``undo`` is called, by a worker, with a result that nobody fetched before the job was called off.
        """
        self._forget()
        with self._lock:
            if len(self._jobs) >= self.capacity:
                raise Refused("Many people are using this right now. Busy, please try again in a moment.")
            progress, held, job = Progress(), Held(work), uuid.uuid4().hex
            future = self._workers.submit(_run, held, progress)
            future.add_done_callback(held.drop)
            self._jobs[job] = _Job(progress, future, undo)
        return job

    def look(self, job: str) -> dict:
        """How far it is, ``{"done", "total"}``; when finished its result, once. Raises Refused for an unknown id."""
        self._forget()
        with self._lock:
            if job not in self._jobs:
                raise Refused("This was stopped or has been fetched already; please start it again.")
            found = self._jobs[job]
            found.progress.wanted_at = time.monotonic()
            if not found.future.done():
                return {"done": found.progress.done, "total": found.progress.total}
            del self._jobs[job]
        return found.future.result()

    def cancel(self, job: str) -> None:
        """Call a job off and forget it; nothing happens where it is unknown."""
        with self._lock:
            found = self._jobs.pop(job, None)
        if found is not None:
            found.progress.called_off = True
            if not found.future.cancel() and found.undo is not None:
                found.future.add_done_callback(lambda late: self._workers.submit(_undo, found.undo, late))

    def _forget(self) -> None:
        limit = time.monotonic() - self.forget_after_s
        for job in [job for job, found in list(self._jobs.items()) if found.progress.wanted_at < limit]:
            self.cancel(job)


@dataclass(frozen=True)
class _Job:
    progress: Progress
    future: Future
    undo: Callable[[dict], object] | None


def _undo(undo: Callable[[dict], object], late: Future) -> None:
    if late.exception() is None:
        undo(late.result())


def _run(work: Work, progress: Progress) -> dict:
    """The work's result, or its one sentence of refusal."""
    try:
        return work(progress)
    except Cancelled:
        return {"error": "Stopped."}
    except REFUSALS as error:
        return {"error": str(error)}
