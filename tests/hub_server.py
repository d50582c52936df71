"""A local stand-in for the Hub: a real HTTP server, its state on disk, as strict as the Hub.

In a test: the fixture ``hub``, which this process takes for the Hub, or a child process with ``hub.environment(home)``.
By hand: ``python -m tests.hub_server --root DIR --port 8899``.
"""

import argparse
import contextlib
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qs, unquote

from tests.hub_stand_in import managing, reading, writing  # noqa: F401  (they register their routes)
from tests.hub_stand_in.calls import Call, Reply, User, as_json, find
from tests.hub_stand_in.store import HubError, Store

if TYPE_CHECKING:
    import pytest

TOKENS = {"hf_write": User("user", "write"), "hf_read": User("user", "read"), "hf_other": User("other", "write")}
FILE_URL = "/{repo_id}/resolve/{revision}/{filename}"
_COPY_BYTES = 1 << 16


@dataclass
class Fault:
    """What goes wrong with the requests whose ``METHOD /path`` a pattern finds, ``times`` times after ``skip`` others.

    ``status`` (with ``headers``) replaces the answer; ``drop`` closes the connection without one; ``hang_s`` waits
    first; ``half_body`` cuts the answer; ``wrong_body`` changes a byte of it; ``call`` runs something, such as a kill.
    With ``after`` the request takes effect before the answer is replaced or dropped.
    """

    pattern: str
    times: int = 1
    skip: int = 0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    hang_s: float = 0
    half_body: bool = False
    wrong_body: bool = False
    call: Callable[[], object] | None = None
    after: bool = False


@dataclass(frozen=True)
class Request:
    """What the server got, and the status it answered; 0 where the client left or was dropped."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    received_bytes: int
    status: int

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class HubServer:
    """The server; use it as a context, or ``start`` and ``stop`` it."""

    token = "hf_write"

    def __init__(self, root: Path, port: int = 0, tokens: dict[str, User] = TOKENS, page_size: int = 1000):
        self.store, self.tokens, self.page_size = Store(root), tokens, page_size
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    def __enter__(self) -> "HubServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def environment(self, home: Path, token: str | None = "hf_write") -> dict[str, str]:
        """Variables for a child process that should take this server for the Hub, with its caches under ``home``."""
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
        return settings | ({"HF_TOKEN": token} if token else {})

    def redirect(self, monkeypatch: "pytest.MonkeyPatch", home: Path) -> None:
        """Makes this process take the server for the Hub, with its caches under ``home``, until the test ends."""
        from huggingface_hub import constants, hf_api

        settings = {"ENDPOINT": self.url, "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": False}
        settings |= {"HF_HUB_DISABLE_XET": True, "HUGGINGFACE_CO_URL_TEMPLATE": self.url + FILE_URL}
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)
        if "datasets" in sys.modules:  # else it will read the variables below
            from datasets import config

            cache = home / "datasets"
            settings = {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": False, "HF_DATASETS_CACHE": cache}
            settings |= {"HUB_DATASETS_URL": f"{self.url}/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}"}
            for name, value in settings.items():
                monkeypatch.setattr(config, name, value)
        for name, value in self.environment(home).items():
            monkeypatch.setenv(name, value)

    def fail(self, pattern: str, **what: object) -> Fault:
        """Adds a fault; the first that fits a request is used."""
        fault = Fault(pattern, **what)
        self.faults.append(fault)
        return fault

    def asked(self, pattern: str) -> list[Request]:
        """The requests so far whose ``METHOD /path`` the pattern finds."""
        return [request for request in list(self.requests) if re.search(pattern, request.line)]

    def take_fault(self, line: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    if fault.skip > 0:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments):
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: socket.socket, client_address: object) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End connections that clients keep open: a server that is gone answers nobody."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that are killed are no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        quoted, _, query = self.path.partition("?")
        path, self.query = unquote(quoted), parse_qs(query, keep_blank_values=True)
        with contextlib.suppress(ConnectionError), tempfile.SpooledTemporaryFile(1 << 20) as body:
            fault = self.hub.take_fault(f"{self.command} {path}")
            if fault and fault.call and not fault.after:
                fault.call()
            try:
                received = self._receive(body)
            except ConnectionError:
                self._record(path, 0, 0)
                return
            reply = self._reply(quoted, body, fault)
            # Recorded before it is sent, so that whoever has the answer finds the record.
            self._record(path, received, reply.status if reply else 0)
            if reply is not None:
                self._send(reply, fault)

    def _record(self, path: str, received: int, status: int) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append(Request(self.command, path, self.query, headers, received, status))

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _reply(self, path: str, body: BinaryIO, fault: Fault | None) -> Reply | None:
        """The answer, or None where the connection is to be dropped."""
        replaced = fault is not None and (fault.status is not None or fault.drop)
        if fault and fault.hang_s:
            self.hub.stopping.wait(fault.hang_s)
        reply = None if replaced and not fault.after else self._answer(path, body)
        if fault and fault.call and fault.after:
            fault.call()
        if fault and fault.drop:
            self.close_connection = True
            return None
        if fault and fault.status is not None:
            message = f"The stand-in was told to fail with {fault.status}"
            return Reply(fault.status, as_json({"error": message}).body, dict(fault.headers))
        return reply

    def _answer(self, path: str, body: BinaryIO) -> Reply:
        body.seek(0)
        try:
            function, groups = find(self.command, path)
            where = {"base_url": self.hub.url, "url": path, "page_size": self.hub.page_size}
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.hub.store, self.command, self._user(), groups, self.query, headers, body, **where)
            return function(call)
        except HubError as fault:
            reply = as_json({"error": fault.message}, fault.status)
            reply.headers |= fault.headers | {"X-Error-Message": fault.message.splitlines()[0]}
            reply.headers |= {"X-Error-Code": fault.code} if fault.code else {}
            return reply
        except (KeyError, TypeError, ValueError) as fault:
            return as_json({"error": f"Bad request: {type(fault).__name__} {fault}"}, 400)

    def _user(self) -> User | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(token)

    def _receive(self, body: BinaryIO) -> int:
        """Bytes of the request's body, now in ``body``. Raises ConnectionError where the client left."""
        received = 0
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while length := int(self.rfile.readline().strip() or b"0", 16):
                received += self._copy(length, body)
                self.rfile.readline()
            self.rfile.readline()
        else:
            received = self._copy(int(self.headers.get("Content-Length", 0)), body)
        return received

    def _copy(self, length: int, body: BinaryIO) -> int:
        left = length
        while left and (chunk := self.rfile.read(min(left, _COPY_BYTES))):
            body.write(chunk)
            left -= len(chunk)
        if left:
            self.close_connection = True
            raise ConnectionError(f"{left} bytes missing")
        return length

    def _send(self, reply: Reply, fault: Fault | None) -> None:
        start, stop = reply.span if reply.file else (0, len(reply.body))
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(stop - start)} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.half_body:
            stop, self.close_connection = start + (stop - start) // 2, True
        with reply.file.open("rb") if reply.file else tempfile.SpooledTemporaryFile() as source:
            if not reply.file:
                source.write(reply.body)
            source.seek(start)
            while start < stop and (chunk := source.read(min(stop - start, _COPY_BYTES))):
                if fault and fault.wrong_body:
                    chunk, fault = bytes([chunk[0] ^ 0xFF]) + chunk[1:], None
                self.wfile.write(chunk)
                start += len(chunk)

    def log_message(self, format: str, *arguments: object) -> None:
        if getattr(self.hub, "verbose", False):
            super().log_message(format, *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder that keeps the repositories")
    parser.add_argument("--port", type=int, default=8899)
    arguments = parser.parse_args()
    hub = HubServer(arguments.root, arguments.port)
    hub.verbose = True
    with hub:
        print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_TOKEN={hub.token}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
