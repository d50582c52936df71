"""Work that takes longer than a visitor should stare at a page: started, watched, cancelled, fetched once."""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from fer_hf.demo.calls import REFUSALS
from fer_hf.demo.limits import Refused


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
        self._jobs: dict[str, tuple[Progress, Future]] = {}

    def start(self, work: Work) -> str:
        """The id of the work, which waits for its turn. Raises Refused when too much waits already."""
        self._forget()
        with self._lock:
            if len(self._jobs) >= self.capacity:
                raise Refused("Many people are using this right now. Busy, please try again in a moment.")
            progress, job = Progress(), uuid.uuid4().hex
            self._jobs[job] = (progress, self._workers.submit(_run, work, progress))
        return job

    def look(self, job: str) -> dict:
        """How far it is, ``{"done", "total"}``; when finished its result, once. Raises Refused for an unknown id."""
        self._forget()
        with self._lock:
            if job not in self._jobs:
                raise Refused("This was stopped or has been fetched already; please start it again.")
            progress, future = self._jobs[job]
            progress.wanted_at = time.monotonic()
            if not future.done():
                return {"done": progress.done, "total": progress.total}
            del self._jobs[job]
        return future.result()

    def cancel(self, job: str) -> None:
        """Call a job off and forget it; nothing happens where it is unknown."""
        with self._lock:
            progress, future = self._jobs.pop(job, (None, None))
        if progress is not None:
            progress.called_off = True
            future.cancel()

    def _forget(self) -> None:
        limit = time.monotonic() - self.forget_after_s
        for job in [job for job, (progress, _) in list(self._jobs.items()) if progress.wanted_at < limit]:
            self.cancel(job)


def _run(work: Work, progress: Progress) -> dict:
    """The work's result, or its one sentence of refusal."""
    try:
        return work(progress)
    except Cancelled:
        return {"error": "Stopped."}
    except REFUSALS as error:
        return {"error": str(error)}
