"""The files that a configuration consists of, and when they have changed and come to rest."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from protocols.errors import ConfigError
from protocols.settings import read_toml

_Stamp = tuple[tuple[str, int, int, int] | None, ...]


def files_of(path: Path) -> list[Path]:
    """Return agent.toml and the point tables and cards that it names.

    Raises:
        ConfigError: when it cannot be read.
    """
    raw = read_toml(path)
    named = [path]
    for table, key in (("device", "points"), ("consumer", "card")):
        entries = raw.get(table)
        rows = entries if isinstance(entries, list) else []
        found = [row[key] for row in rows if isinstance(row, dict) and key in row]
        named += [path.parent / name for name in found if isinstance(name, str)]
    return named


class WatchedFiles:
    """Looks at the files now and then. Not for the event loop: it reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = [path]
        self._parsed: _Stamp = ()
        self._seen = self._settled = self._look()

    def changed(self) -> bool:
        """Tell once that the files have changed, at the look after the one that saw them change.

        What is still being written changes between two looks, and is left alone.
        """
        now = self._look()
        quiet, self._seen = now == self._seen, now
        if not quiet or now == self._settled:
            return False
        self._settled = now
        return True

    def read(self) -> None:
        """Note that the files were read as they are now."""
        self._settled = self._seen = self._look()

    def _look(self) -> _Stamp:
        # Reading a long file takes a good part of a second: only when it is another one.
        stamp = tuple(_stamps([self._path]))
        if stamp != self._parsed:
            self._parsed = stamp
            # Of one that is half-written or faulty, the files it named before are looked at.
            with contextlib.suppress(ConfigError):
                self._files = files_of(self._path)
        return tuple(_stamps(self._files))


def _stamps(files: Iterable[Path]) -> Iterable[tuple[str, int, int, int] | None]:
    for path in files:
        try:
            found = path.stat()
        except OSError:
            yield None
        else:
            yield str(path), found.st_ino, found.st_mtime_ns, found.st_size
