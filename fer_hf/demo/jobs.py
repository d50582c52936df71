"""Work that takes longer than a visitor should stare at a page: started, watched, fetched, let go."""

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from fer_hf.demo.calls import REFUSALS
from fer_hf.demo.limits import Held, Refused, end_with_server

SILENT_S = 150.0
"""How long a page may be silent while its work waits or runs; browsers wake a hidden one once a minute."""
KEPT_S = 300.0
"""How long a result waits for a page that is silent, as that of a locked phone is."""
KEPT_RESULTS = 8
"""Results that wait at a time: each may hold a clip, or the pictures of a batch."""
REMEMBERED_IDS = 256


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


@dataclass
class _Job:
    progress: Progress
    future: Future
    undo: Callable[[dict], object] | None


class Jobs:
    """A few long pieces of work at a time for all visitors.

    A job whose page has not asked for it for ``silent_s`` is called off: the visitor has left. A result waits longer,
    for ``kept_s`` after the last question, and of those the ``kept_results`` asked for last. Ids are random, so nobody
    can guess another's.
    """

    def __init__(
        self,
        running: int = 1,
        waiting: int = 8,
        silent_s: float = SILENT_S,
        kept_s: float = KEPT_S,
        kept_results: int = KEPT_RESULTS,
    ) -> None:
        self.capacity, self.silent_s = running + waiting, silent_s
        self.kept_s, self.kept_results = kept_s, kept_results
        self._workers = ThreadPoolExecutor(running, thread_name_prefix="fer-job")
        self._undoers = ThreadPoolExecutor(1, thread_name_prefix="fer-undo")
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._forgotten: deque[str] = deque(maxlen=REMEMBERED_IDS)
        end_with_server(self)

    def start(self, work: Work, undo: Callable[[dict], object] | None = None) -> str:
        """The id of the work, which waits for its turn. Raises Refused when too much waits already.

        ``undo`` is called, by a thread of its own, with a result that nobody fetched before the job was called off.
        """
        self._forget()
        with self._lock:
            if sum(not job.future.done() for job in self._jobs.values()) >= self.capacity:
                raise Refused("Many people are using this right now. Busy, please try again in a moment.")
            progress, held, job = Progress(), Held(work), uuid.uuid4().hex
            future = self._workers.submit(_run, held, progress)
            future.add_done_callback(held.drop)
            self._jobs[job] = _Job(progress, future, undo)
        return job

    def look(self, job: str) -> dict:
        """How far it is, ``{"done", "total"}``; when finished its result. Raises Refused for an unknown id.

        A result can be fetched again, as after an answer that got lost, until it is cancelled.
        """
        with self._lock:
            if job in self._jobs:
                self._jobs[job].progress.wanted_at = time.monotonic()
        self._forget()
        with self._lock:
            if job in self._forgotten:
                raise Refused("Your page was silent for too long, so this was not kept; please start it again.")
            if job not in self._jobs:
                raise Refused("This was stopped or has been fetched already; please start it again.")
            found = self._jobs[job]
            if not found.future.done():
                return {"done": found.progress.done, "total": found.progress.total}
            found.undo = None
        return found.future.result()

    def cancel(self, job: str) -> None:
        """Call a job off, or let go of its result, and forget it; nothing happens where it is unknown."""
        with self._lock:
            found = self._jobs.pop(job, None)
        if found is not None:
            found.progress.called_off = True
            if not found.future.cancel() and found.undo is not None:
                found.future.add_done_callback(lambda late: self._undoers.submit(_undo, found.undo, late))

    def end(self) -> None:
        """Call all jobs off."""
        with self._lock:
            known = list(self._jobs)
        for job in known:
            self.cancel(job)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Return when what ran has stopped, and what nobody had fetched is undone."""
        self._workers.shutdown()
        self._undoers.shutdown()

    def _forget(self) -> None:
        now = time.monotonic()
        with self._lock:
            latest_first = sorted(self._jobs.items(), key=lambda item: item[1].progress.wanted_at, reverse=True)
        finished = [job for job, found in latest_first if found.future.done()]
        for job, found in latest_first:
            silent_s = now - found.progress.wanted_at
            if silent_s > (self.kept_s if job in finished else self.silent_s) or job in finished[self.kept_results :]:
                self._forgotten.append(job)
                self.cancel(job)


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
