"""What the public may ask of the server: size of a request, length of the line, time per request; traces deleted."""

import asyncio
import contextlib
import contextvars
import functools
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, Protocol, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEGABYTE = 10**6
REQUEST_BYTES = 64 * MEGABYTE
"""The longest body of any request; what one photo, archive or clip may take is less and is checked where it is read."""
WORKERS = 2
"""Visitors who are served at the same moment."""
UNSWEPT = "own-"
"""How the names of folders begin whose makers delete them, however long they write without anything to be seen."""

Result = TypeVar("Result")


class Refused(Exception):
    """A request that is not done; the message is one sentence for the visitor."""


class Working(Protocol):
    """What has threads at work."""

    def end(self) -> None:
        """Start nothing that waits, and return at once."""

    def wait(self) -> None:
        """Return when what runs has ended."""


_WORKING: "weakref.WeakSet[Working]" = weakref.WeakSet()


def end_with_server(working: Working) -> None:
    """Have ``end_work`` end this, for as long as somebody uses it."""
    _WORKING.add(working)


def end_work() -> None:
    """Call off what waits or runs for visitors, who cannot be answered any more; Python would first do all of it."""
    working = list(_WORKING)
    for one in working:
        one.end()
    for one in working:
        one.wait()


class BodyLimit:
    """ASGI middleware that answers 413 to a request whose body is longer than allowed, on every route.

    A declared length is refused at once; a body without one is counted while it arrives, so that ``data:`` URLs in
    JSON and chunked uploads are held to the same limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = REQUEST_BYTES) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.max_bytes:
            await self._refuse(send)
            return
        received, answered, refused = 0, False, False

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise _BodyTooLong
            return message

        async def guarded_send(message: Message) -> None:
            # Frameworks turn the exception into an answer of their own; this one says what is wrong.
            nonlocal answered, refused
            if received > self.max_bytes and not answered:
                answered = refused = True
                await self._refuse(send)
            elif not refused:
                answered = True
                await send(message)

        try:
            await self.app(scope, counted_receive, guarded_send)
        except _BodyTooLong:
            if not answered:
                await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        text = f"The request is too large; at most {self.max_bytes // MEGABYTE} MB are taken.".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class _BodyTooLong(Exception):
    pass


class Held:
    """Work that an executor keeps until its turn, and lets go of once it has begun or was cancelled.

    An executor keeps a cancelled item until a worker is free for it, with all that the item refers to.
    """

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work: Callable[..., Any] | None = work

    def __call__(self, *args: Any) -> Any:
        work, self._work = self._work, None
        return work(*args)

    def drop(self, _: Future) -> None:
        """To be called when the future is done."""
        self._work = None


class Line:
    """A bounded line in front of a few workers: work starts in order of arrival, and who finds it full is refused.

    ``running`` pieces of work go on at a time and at most ``waiting`` more are kept; ``seconds`` is the longest a
    visitor waits for an answer, in line and at work together, and is then given ``advice``.
    """

    def __init__(
        self,
        running: int = WORKERS,
        waiting: int = 100,
        seconds: float = 30.0,
        advice: str = "and is not waited for; try a smaller picture, or again later",
    ) -> None:
        self.capacity, self.seconds, self.advice = running + waiting, seconds, advice
        self._workers = ThreadPoolExecutor(running, thread_name_prefix="fer-work")
        self._lock = threading.Lock()
        self._open = 0
        end_with_server(self)

    def end(self) -> None:
        """Start nothing that waits; what runs goes on."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Return when what runs has ended."""
        self._workers.shutdown()

    def _submit(self, work: Callable[..., Result], args: tuple[Any, ...]) -> "Future[Result]":
        with self._lock:
            if self._open >= self.capacity:
                raise Refused("Many people are using this right now. Busy, please try again in a moment.")
            self._open += 1
        # The context carries Gradio's request along, which ZeroGPU's scheduler reads.
        held = Held(functools.partial(contextvars.copy_context().run, work, *args))
        future = self._workers.submit(held)
        future.add_done_callback(held.drop)
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future) -> None:
        with self._lock:
            self._open -= 1

    async def run(self, work: Callable[..., Result], *args: Any) -> Result:
        """What ``work(*args)`` returns, computed by one of the workers; raises Refused when full or too slow.

        Work that has begun cannot be stopped: it goes on, and what it returns then is lost.
        """
        future = self._submit(work, args)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except TimeoutError:
            future.cancel()
            raise Refused(self._too_slow()) from None

    def run_blocking(self, work: Callable[..., Result], *args: Any) -> Result:
        """The same for a caller that is a thread of its own."""
        future = self._submit(work, args)
        try:
            return future.result(self.seconds)
        except FutureTimeout:
            future.cancel()
            raise Refused(self._too_slow()) from None

    def _too_slow(self) -> str:
        return f"This took longer than {self.seconds:.0f} seconds {self.advice}."


class ScratchFolder:
    """A private folder for all temporary files of the process, emptied of what outlives a request.

    Requests delete their own files; the sweep catches what an aborted upload leaves behind.
    """

    def __init__(self, max_age_s: float = 300.0, sweep_every_s: float = 30.0) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="fer-demo-"))
        self.max_age_s, self.sweep_every_s = max_age_s, sweep_every_s
        self._stop = threading.Event()

    def __enter__(self) -> "ScratchFolder":
        threading.Thread(target=self._sweep_until_stopped, name="fer-sweep", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        shutil.rmtree(self.path, ignore_errors=True)

    def _sweep_until_stopped(self) -> None:
        while not self._stop.wait(self.sweep_every_s):
            self.sweep(time.time())

    def sweep(self, now: float) -> None:
        """Delete the files whose last change lies further back than the allowed age, and folders left empty.

        Folders whose names begin with ``UNSWEPT`` stay, with what is in them.
        """
        found = [path for path in self.path.rglob("*") if not path.relative_to(self.path).parts[0].startswith(UNSWEPT)]
        for path in sorted(found, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):  # another thread deleted it first, or a folder is not empty
                if now - path.stat().st_mtime > self.max_age_s:
                    path.rmdir() if path.is_dir() else path.unlink()
