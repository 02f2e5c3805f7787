"""Programs from Debian that tests run against: found, installed, or said to be missing."""

import os
import subprocess
from pathlib import Path
from typing import Final, NoReturn

import pytest

from simulators.servers.programs import find

_INSTALL_SECONDS: Final = 600
_TRIED: Final[set[str]] = set()


def require(binary: str, package: str) -> Path:
    """Return the path of a program, installing its Debian package where that is possible.

    Without it the test is skipped, or fails where CI=true: there a skip would hide a hole.
    """
    found = find(binary)
    if found is None and package not in _TRIED:
        _TRIED.add(package)
        _install(package)
        found = find(binary)
    if found is None:
        missing(f"needs {binary} (Debian package {package}), which is not installed")
    return found


def _install(package: str) -> None:
    if os.geteuid() != 0 or find("apt-get") is None:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", package]):
        subprocess.run(
            ["/usr/bin/apt-get", *arguments],
            env=environment,
            check=False,
            capture_output=True,
            timeout=_INSTALL_SECONDS,
        )


def missing(reason: str) -> NoReturn:
    """Skip a test for a reason, or fail where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
