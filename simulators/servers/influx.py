"""A real InfluxDB, with the one endpoint that Debian's version 1.6 lacks.

InfluxDB 1.8, 2 and 3 take line protocol at /api/v2/write; 1.6 only at /write. A small door
before it translates that path and hands everything else through, and can be told to answer
as an overloaded or forbidding server would.
"""

import contextlib
import json
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import urllib3

from simulators.servers.programs import does_not_start, free_port

_START_TRIES: Final = 5
_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 20

Part = TypeVar("Part")

_CONFIG: Final = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/meta"
logging-enabled = false
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
[http]
bind-address = "127.0.0.1:{http}"
log-enabled = false
max-row-limit = {max_rows}
[monitor]
store-enabled = false
[subscriber]
enabled = false
[continuous_queries]
enabled = false
[logging]
level = "error"
suppress-logo = true
"""


@dataclass
class Faults:
    """What the door answers instead of asking InfluxDB.

    Attributes:
        write, query: (HTTP status, error text) for every such request; None passes it on.
        largest_body: longest line protocol taken, in bytes; longer ones get 413.
        poison: text for which a request is refused as a whole, as InfluxDB 2 does.
        unsupported: a statement's beginning that is answered as an unknown one.
        token: the token asked for; None asks for none.
        turns: what happens to the next writes, one after the other: `pass`; `half`, the first half is
            written and then 503; `mute`, all is written and nothing answered; `later`, 429 with a
            Retry-After of one second; `token`, 401; `large`, 413 where it has more than one line.
    """

    write: tuple[int, str] | None = None
    query: tuple[int, str] | None = None
    largest_body: int | None = None
    poison: bytes | None = None
    unsupported: str | None = None
    token: str | None = None
    turns: deque[str] = field(default_factory=deque)


@dataclass
class Door:
    """The HTTP server before InfluxDB; `seen` holds (path, body length) of what it was asked."""

    upstream: str
    port: int = 0
    faults: Faults = field(default_factory=Faults)
    seen: list[tuple[str, int]] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None
    _thread: threading.Thread | None = None

    def open(self) -> None:
        """Let requests in."""
        door = self

        class Handler(_Handler):
            owner = door

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="influx-door"
        )
        self._thread.start()

    def close(self) -> None:
        """Refuse requests from now on."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(_STOP_SECONDS)
        self._server = self._thread = None


class _Handler(BaseHTTPRequestHandler):
    owner: Door
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    # Ends the handler's thread when the client keeps an idle connection open.
    timeout = 5

    def setup(self) -> None:
        """Keep connections to InfluxDB for as long as the client's lasts."""
        super().setup()
        self.pool = urllib3.PoolManager(retries=False, timeout=60)

    def finish(self) -> None:
        """Let them go."""
        self.pool.clear()
        super().finish()

    def do_GET(self) -> None:  # the name http.server calls
        """Answer a query."""
        self._handle()

    def do_POST(self) -> None:  # the name http.server calls
        """Take a write."""
        self._handle()

    def log_message(self, *_: object) -> None:
        """Say nothing: `seen` tells what was asked."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        target = urlsplit(self.path)
        self.owner.seen.append((target.path, len(body)))
        fault = self._fault(target.path, target.query, body)
        if fault is None and target.path == "/api/v2/write" and self.owner.faults.turns:
            fault = self._turn(self.owner.faults.turns.popleft(), target.query, body)
        if self.close_connection:
            return
        if fault is not None:
            self._answer(fault[0], json.dumps({"error": fault[1]}).encode(), "application/json")
            return
        try:
            answer = self._upstream(target.path, target.query, body)
        except urllib3.exceptions.HTTPError:
            self._answer(502, b'{"error":"no upstream"}', "application/json")
            return
        self._answer(answer.status, answer.data, answer.headers.get("Content-Type", "text/plain"))

    def _upstream(self, path: str, query: str, body: bytes) -> urllib3.BaseHTTPResponse:
        return self.pool.request(
            self.command,
            self.owner.upstream + self._translated(path, query),
            body=body or None,
            headers={"Content-Type": self.headers.get("Content-Type", "text/plain")},
        )

    def _turn(self, turn: str, query: str, body: bytes) -> tuple[int, str] | None:
        lines = body.splitlines(keepends=True)
        if turn == "half":
            self._upstream("/api/v2/write", query, b"".join(lines[: len(lines) // 2]))
            return 503, "lost its way"
        if turn == "mute":
            self._upstream("/api/v2/write", query, body)
            self.close_connection = True
        if turn == "large" and len(lines) == 1:
            return None
        answers = {"later": (429, "later"), "token": (401, "who?"), "large": (413, "too large")}
        return answers.get(turn)

    def _fault(self, path: str, query: str, body: bytes) -> tuple[int, str] | None:
        faults = self.owner.faults
        writes = path == "/api/v2/write"
        if faults.token and self.headers.get("Authorization") != f"Token {faults.token}":
            return 401, "unauthorized access"
        if writes and faults.largest_body is not None and len(body) > faults.largest_body:
            return 413, "Request Entity Too Large"
        if writes and faults.poison and faults.poison in body:
            return 422, f"failure writing points: {body[:80].decode(errors='replace')}"
        statement = "".join(parse_qs(query).get("q", []) + parse_qs(body.decode()).get("q", []))
        if not writes and faults.unsupported and statement.startswith(faults.unsupported):
            return 400, "error parsing query: not supported"
        return faults.write if writes else faults.query

    @staticmethod
    def _translated(path: str, query: str) -> str:
        if path != "/api/v2/write":
            return f"{path}?{query}" if query else path
        asked = parse_qs(query)
        precision = {"ns": "n", "us": "u"}.get(asked["precision"][0], asked["precision"][0])
        return "/write?" + urlencode({"db": asked["bucket"][0], "precision": precision})

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 429:
            self.send_header("Retry-After", "1")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)
        self.wfile.flush()


class InfluxServer:
    """InfluxDB as a process, behind its door; stopped and started again it keeps its data."""

    def __init__(self, binary: Path, folder: Path, *, max_rows: int = 0) -> None:
        self._binary = binary
        self._folder = folder
        self._max_rows = max_rows
        self._process: subprocess.Popen[bytes] | None = None
        self._door: Door | None = None
        self._ports: tuple[int, int] | None = None

    @property
    def url(self) -> str:
        """Where stores connect to: http://127.0.0.1:port."""
        return f"http://127.0.0.1:{self.door.port}"

    @property
    def upstream(self) -> str:
        """InfluxDB itself, without the door."""
        return f"http://127.0.0.1:{_started(self._ports)[1]}"

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        return _started(self._process).pid

    @property
    def door(self) -> Door:
        """The door, once it was started."""
        return _started(self._door)

    def start(self) -> None:
        """Start it (again), and open its door once it answers.

        Raises:
            ServerFault: when it does not.
        """
        for _ in range(_START_TRIES):
            if self._ports is None:
                self._ports = (free_port(), free_port())
            if self._launch(self._ports):
                break
            self._ports = None
        else:
            raise does_not_start("InfluxDB", self._folder / "influxd.log")
        if self._door is None:
            self._door = Door(self.upstream)
        self._door.upstream = self.upstream
        self._door.open()

    def stop(self) -> None:
        """End it as an administrator would."""
        if self._door is not None:
            self._door.close()
        self._end_process()

    def kill(self) -> None:
        """End InfluxDB as a power cut would."""
        if self._door is not None:
            self._door.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._process = None

    def _launch(self, ports: tuple[int, int]) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "influxd.conf"
        config.write_text(
            _CONFIG.format(
                rpc=ports[0], http=ports[1], folder=self._folder, max_rows=self._max_rows
            )
        )
        with (self._folder / "influxd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-config", config], stdout=log, stderr=log, cwd=self._folder
            )
        if self._answers(ports[1]):
            return True
        self._end_process()
        return False

    def _answers(self, port: int) -> bool:
        process = _started(self._process)
        deadline = time.monotonic() + _START_SECONDS
        with urllib3.PoolManager(retries=False, timeout=1) as pool:
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    # A second server that took the port meanwhile would answer too.
                    if pool.request("GET", f"http://127.0.0.1:{port}/ping").status == 204:
                        return process.poll() is None
                time.sleep(0.05)
        return False

    def _end_process(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._process = None


def _started(part: Part | None) -> Part:
    if part is None:
        raise RuntimeError("InfluxDB was not started")
    return part
