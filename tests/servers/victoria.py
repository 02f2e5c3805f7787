"""A real VictoriaMetrics for tests."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from simulators.servers.programs import HOST, does_not_start, free_port
from tests.servers import debian

_START_S = 30.0
_STOP_S = 20.0


@dataclass(frozen=True)
class Victoria:
    """A running VictoriaMetrics."""

    url: str

    def export(self, pattern: str) -> list[dict[str, Any]]:
        """Return all series whose name matches: `metric`, `values`, `timestamps` (ms)."""
        urllib3.request("GET", f"{self.url}/internal/force_flush", timeout=30)
        fields = {"match[]": f'{{__name__=~"{pattern}"}}', "start": "0", "end": "4102444800"}
        answer = urllib3.request("GET", f"{self.url}/api/v1/export", fields=fields, timeout=30)
        return [json.loads(line) for line in answer.data.splitlines()]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Victoria]:
    """Run a VictoriaMetrics in a folder, as the documentation says it should be run."""
    binary = debian.require("victoria-metrics", "victoria-metrics")
    folder.mkdir()
    port = free_port()
    arguments = [
        str(binary),
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr={HOST}:{port}",
        "-retentionPeriod=100y",
        "-dedup.minScrapeInterval=1ms",
        "-memory.allowedBytes=128MiB",
        "-loggerLevel=ERROR",
    ]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(arguments, stdout=out, stderr=out)
    try:
        until = time.monotonic() + _START_S
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > until:
                raise does_not_start("VictoriaMetrics", log)
            time.sleep(0.05)
        yield Victoria(f"http://{HOST}:{port}")
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _healthy(port: int) -> bool:
    try:
        answer = urllib3.request("GET", f"http://{HOST}:{port}/health", timeout=1, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    return bool(answer.status == 200)
