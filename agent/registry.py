"""The small local registry: a JSON file that people can read, behind atomic, fsynced writes.

It holds the epoch and the history of enforced policies, never a sample. What scans have found is in a
file of its own: a command that writes it never touches what a running agent relies on.
"""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tinydb import TinyDB, where
from tinydb.storages import Storage

from protocols.errors import MillgateError
from protocols.folders import writing_to
from protocols.language import tr
from security.files import PUBLIC, write_whole

_EPOCH: Final = "epoch"
_POLICY: Final = "policy"
_DISCOVERED: Final = "discovered"
_MOST_DISCOVERED: Final = 32
_MOST_NODES: Final = 2000
_STOP: Final = "stop"


class AtomicStorage(Storage):
    """A TinyDB storage whose file is the old one or the new one, never a half."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read(self) -> dict[str, dict[str, Any]] | None:
        """Return all tables; None before the first write."""
        try:
            tables = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            tables = None
        if not _are_tables(tables):
            # Taken for empty, it would let the chain and the policies start from nothing.
            raise MillgateError(
                tr("the registry is damaged", "登记文件已损坏"),
                where=str(self._path),
                remedy=tr("restore it from a backup", "请从备份恢复"),
            )
        return dict(tables)

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        """Replace all tables."""
        text = json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True)
        write_whole(self._path, text.encode(), PUBLIC)


def _are_tables(found: object) -> bool:
    return isinstance(found, dict) and all(
        isinstance(table, dict) and all(isinstance(row, dict) for row in table.values())
        for table in found.values()
    )


class Registry:
    """The agent's registry; both sides write to it, in turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = TinyDB(path, storage=AtomicStorage)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let nobody else write meanwhile: each write replaces the whole file."""
        with self._path.with_name(f".{self._path.name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def epoch(self) -> int:
        """The epoch in use; 0 before the first."""
        found = self._db.table(_EPOCH).all()
        return max((int(entry["epoch"]) for entry in found), default=0)

    def open_epoch(self, epoch: int, at_s: int) -> None:
        """Note that an epoch begins."""
        with self._alone():
            self._db.table(_EPOCH).insert({"epoch": epoch, "at": at_s})

    def last_policy(self) -> tuple[int, bytes]:
        """Return version and hash of the newest policy that was ever enforced; 0 and empty."""
        found = self._db.table(_POLICY).all()
        newest = max(found, key=lambda entry: int(entry["version"]), default=None)
        if newest is None:
            return 0, b""
        return int(newest["version"]), bytes.fromhex(newest["hash"])

    def enforce(
        self, version: int, policy_hash: bytes, at_s: int, signers: Sequence[bytes] = ()
    ) -> None:
        """Note that a policy is enforced from now on, and whose keys signed it; each once."""
        with self._alone():
            table = self._db.table(_POLICY)
            if not table.contains(where("hash") == policy_hash.hex()):
                table.insert(
                    {
                        "version": version,
                        "hash": policy_hash.hex(),
                        "at": at_s,
                        "signers": [kid.hex() for kid in signers],
                    }
                )

    def policies(self) -> list[dict[str, Any]]:
        """Return every policy that was ever enforced: version, hash, at (seconds), signers."""
        found = [dict(entry) for entry in self._db.table(_POLICY).all()]
        return sorted(found, key=lambda entry: (int(entry["at"]), int(entry["version"])))

    def stops(self) -> list[dict[str, Any]]:
        """Return every stop that was met: through (version), at (seconds)."""
        return [dict(entry) for entry in self._db.table(_STOP).all()]

    @property
    def newest_s(self) -> int | None:
        """The newest time on record, seconds since 1970 UTC; None before the first."""
        tables = [self._db.table(name).all() for name in (_EPOCH, _POLICY)]
        return max((int(entry["at"]) for found in tables for entry in found), default=None)

    def not_later_than(self, at_s: int) -> None:
        """Put what was noted by a clock that was ahead at the right time; the order stays."""
        with self._alone():
            for name in (_EPOCH, _POLICY):
                self._db.table(name).update({"at": at_s}, where("at") > at_s)

    @property
    def stopped_through(self) -> int:
        """The newest policy version that an officer has ever stopped; 0 for none."""
        found = self._db.table(_STOP).all()
        return max((int(entry["through"]) for entry in found), default=0)

    def stop(self, through: int, at_s: int) -> None:
        """Note that an officer has stopped a policy version and every older one."""
        with self._alone():
            self._db.table(_STOP).insert({"through": through, "at": at_s})


class Discoveries:
    """What scans have found, bounded, in a file that people can read."""

    def __init__(self, folder: Path) -> None:
        self._db = TinyDB(folder / "discovered.json", storage=AtomicStorage)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def note(self, place: str, found: dict[str, Any], at_s: int) -> None:
        """Note what a scan has found at a place; the newest of a place and the newest places stay.

        Args:
            place: what was scanned.
            found: what was found; no values.
            at_s: seconds since 1970 UTC.
        """
        kept = {**found, "nodes": found["nodes"][:_MOST_NODES]} if "nodes" in found else found
        table = self._db.table(_DISCOVERED)
        table.remove(where("place") == place)
        table.insert({"place": place, "at": at_s, "found": kept})
        older = sorted(table.all(), key=lambda entry: int(entry["at"]))[:-_MOST_DISCOVERED]
        table.remove(doc_ids=[entry.doc_id for entry in older])

    def all(self) -> list[dict[str, Any]]:
        """Return what scans have found, the newest first: place, at (seconds), found."""
        found = [dict(entry) for entry in self._db.table(_DISCOVERED).all()]
        return sorted(found, key=lambda entry: -int(entry["at"]))
