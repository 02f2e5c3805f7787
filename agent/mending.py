"""Mends a damaged spool: what is whole goes on, what is not becomes a gap that the brain is told of.

Every batch is judged by itself, by its own hash. The damaged file is kept aside, the last one only. When
chains or settings were hit as well, a new epoch begins: what waits in the old one is delivered
first.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.spool import GIVEN_UP, WAITING, Spool, SpoolDamaged, is_damage
from protocols.language import tr
from protocols.strict_cbor import Malformed
from security.envelope import BATCH, Header, parse
from security.files import sync_folder, write_whole

ASIDE: Final = "spool.damaged.db"
_MARK: Final = "spool.damaged"
_FOUND, _MOVED = b"found", b"moved"
_NEW: Final = "spool.mended.db"
_LOGS: Final = ("-wal", "-shm")
_TABLES: Final = {
    "meta": "key",
    "chain": "epoch, stream",
    "gap": "epoch, stream, first",
    "ending": "epoch, stream",
    "attestation": "number",
    "receipt": "epoch, stream",
    "proof": "id",
}
_VITAL: Final = frozenset({"meta", "chain", "gap", "ending"})
_COLUMNS: Final = "id, epoch, stream, sequence, digest, sheet, is_sheet, cells, status, code, size, at, first, sealed"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Place:
    """Where a row of `batch` was, as far as an index tells."""

    status: int | None = None
    cells: int = 0
    is_sheet: int = 0
    chain: tuple[int, int] | None = None
    sequence: int = -1


@dataclass(slots=True)
class Mended:
    """What became of a damaged spool.

    Attributes:
        kept: messages that are whole.
        lost: batches that waited and are not; declared lost to the brain.
        values: how many values these held, as far as is known.
        epoch_ends: chains or settings were hit: a new epoch begins.
    """

    kept: int = 0
    lost: int = 0
    values: int = 0
    epoch_ends: bool = False


@dataclass(slots=True)
class _Found:
    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    batches: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    places: dict[int, _Place] = field(default_factory=dict)
    whole: bool = True


def mark_damaged(path: Path) -> None:
    """Note that the spool is to be mended when it is opened next."""
    mark = path.with_name(_MARK)
    if not mark.exists():
        mark.write_bytes(_FOUND)


def open_mended(path: Path) -> Spool:
    """Open the spool; mend it first where it is damaged.

    Raises:
        SpoolFault: when it cannot be opened for another reason.
    """
    if not path.with_name(_MARK).exists():
        try:
            return _opened(path)
        except SpoolDamaged:
            mark_damaged(path)
    mended = _mend(path)
    _say(mended, path.with_name(ASIDE))
    return Spool(path)


def _opened(path: Path) -> Spool:
    """Open it and read once what everything hangs on.

    Raises:
        SpoolDamaged: when that cannot be read.
    """
    spool = Spool(path)
    try:
        for table in _TABLES:
            spool.db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - names of our own tables
        spool.tally()
    except (sqlite3.Error, TypeError) as error:
        spool.close()
        if is_damage(error) or isinstance(error, TypeError):
            raise SpoolDamaged(tr("the spool's file is damaged", "缓存库文件已损坏")) from None
        raise
    return spool


def _mend(path: Path) -> Mended:
    """Build a new file of what is whole; a crash at any moment only means to begin again."""
    aside, new, mark = (path.with_name(name) for name in (ASIDE, _NEW, _MARK))
    if mark.read_bytes() != _MOVED:
        for suffix in ("", *_LOGS):
            Path(f"{aside}{suffix}").unlink(missing_ok=True)
        # Before the file moves: taken for not moved after a power cut, all that waits would go.
        write_whole(mark, _MOVED)
    for suffix in ("", *_LOGS):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")  # noqa: PTH105 - a suffix, no path
    for suffix in ("", *_LOGS):
        Path(f"{new}{suffix}").unlink(missing_ok=True)
    found = _salvage(aside)
    spool = Spool(new)
    try:
        mended = _rebuild(spool, found)
    finally:
        spool.close()
    new.replace(path)
    sync_folder(path.parent)
    mark.unlink()
    return mended


# Reading what can be read.


def _salvage(path: Path) -> _Found:
    found = _Found()
    try:
        db = sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None)
    except sqlite3.Error:
        found.whole = False
        return found
    with contextlib.closing(db):
        for table, key in _TABLES.items():
            rows, whole = _both_ways(db, f"SELECT * FROM {table}", key)  # noqa: S608 - names of our own
            found.tables[table] = rows
            found.whole &= whole or table not in _VITAL
        _places(db, found.places)
        for row_id in sorted(found.places):
            row = _one(db, row_id)
            if row is not None:
                found.batches[row_id] = row
    return found


def _both_ways(db: sqlite3.Connection, query: str, key: str) -> tuple[list[tuple[Any, ...]], bool]:
    """Read from the front, and where that ends early from the back; tell whether all was read."""
    rows: dict[tuple[Any, ...], None] = {}
    order = ", ".join(f"{one} DESC" for one in key.split(", "))
    for turn in (key, order):
        try:
            for row in db.execute(f"{query} ORDER BY {turn}"):
                rows[row] = None
        except (sqlite3.Error, OverflowError, UnicodeDecodeError):
            continue
        return list(rows), turn == key
    return list(rows), False


def _places(db: sqlite3.Connection, places: dict[int, _Place]) -> None:
    """Collect what indexes and the table itself tell about the rows of `batch`."""
    by_status = "SELECT id, status, cells, is_sheet FROM batch INDEXED BY batch_status"
    for row_id, status, cells, is_sheet in _both_ways(db, by_status, "status, id")[0]:
        place = places.setdefault(row_id, _Place())
        place.status, place.cells, place.is_sheet = status, cells, is_sheet
    by_chain = "SELECT id, epoch, stream, sequence FROM batch INDEXED BY sqlite_autoindex_batch_1"
    for row_id, epoch, stream, sequence in _both_ways(db, by_chain, "epoch, stream, sequence")[0]:
        place = places.setdefault(row_id, _Place())
        place.chain, place.sequence = (epoch, stream), sequence
    for (row_id,) in _both_ways(db, "SELECT id FROM batch NOT INDEXED", "id")[0]:
        places.setdefault(row_id, _Place())


def _one(db: sqlite3.Connection, row_id: int) -> tuple[Any, ...] | None:
    """Return a row of `batch` if it is what was sealed; None else."""
    try:
        row: tuple[Any, ...] | None = db.execute(
            f"SELECT {_COLUMNS} FROM batch NOT INDEXED WHERE id = ?",  # noqa: S608 - a constant
            (row_id,),
        ).fetchone()
    except (sqlite3.Error, OverflowError, UnicodeDecodeError):
        return None
    if row is None or not _is_whole(row):
        return None
    return row


def _is_whole(row: tuple[Any, ...]) -> bool:
    _, epoch, stream, sequence, digest, sheet, is_sheet, *_, status, _, size, _, first, sealed = row
    if status == GIVEN_UP:
        return bool(len(digest) == hashlib.sha256().digest_size and 0 <= first <= sequence)
    if len(sealed) != size or hashlib.sha256(sealed).digest() != digest:
        return False
    header = _header(sealed)
    if header is None:
        return False
    place = header.epoch, header.stream, header.sequence, header.sheet_hash
    kind = parse(sealed).content_type == BATCH
    return place == (epoch, stream, sequence, sheet) and kind != bool(is_sheet)


def _header(sealed: bytes) -> Header | None:
    try:
        return parse(sealed).header
    except Malformed:
        return None


# Writing what is whole.


def _rebuild(spool: Spool, found: _Found) -> Mended:
    mended = Mended(epoch_ends=not found.whole)
    with spool.transaction() as db:
        for table, rows in found.tables.items():
            for row in rows:
                _insert(db, table, row)
        for row in found.batches.values():
            _insert(db, f"batch ({_COLUMNS})", row)
        mended.kept = len(found.batches)
        ends = _chain_ends(found)
        for run in _runs(found):
            digest = _digest_of(found, ends, run[-1])
            mended.lost += len(run)
            mended.values += sum(place.cells for place in run)
            if digest is None:
                # The chain cannot be shown to go on behind it.
                mended.epoch_ends = True
            else:
                _declare(db, run, digest)
        if mended.epoch_ends:
            db.execute("DELETE FROM meta WHERE key IN ('epoch', 'memory', 'number')")
    return mended


def _insert(db: sqlite3.Connection, table: str, row: tuple[Any, ...]) -> None:
    marks = ", ".join("?" for _ in row)
    # A row that breaks the schema's own rules was damaged too.
    with contextlib.suppress(sqlite3.IntegrityError):
        db.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608 - names of our own


def _runs(found: _Found) -> Iterator[list[_Place]]:
    """Yield the batches that waited and are not whole, in runs of one chain."""
    lost = [
        place
        for row_id, place in found.places.items()
        if row_id not in found.batches
        and place.status in {WAITING, GIVEN_UP}
        and place.chain is not None
    ]
    lost.sort(key=lambda place: (place.chain or (0, 0), place.sequence))
    run: list[_Place] = []
    for place in lost:
        if run and (run[-1].chain, run[-1].sequence + 1) != (place.chain, place.sequence):
            yield run
            run = []
        run.append(place)
    if run:
        yield run


def _chain_ends(found: _Found) -> dict[tuple[int, int], tuple[int, bytes]]:
    return {(row[0], row[1]): (row[2], row[3]) for row in found.tables.get("chain", [])}


def _digest_of(
    found: _Found, ends: dict[tuple[int, int], tuple[int, bytes]], last: _Place
) -> bytes | None:
    """Return the hash of a message that is gone: the one behind it names it, or the chain's end."""
    if last.chain is None:
        return None
    following, digest = ends.get(last.chain, (-1, b""))
    if following == last.sequence + 1:
        return digest
    place = (*last.chain, last.sequence + 1)
    for row in found.batches.values():
        if row[1:4] == place and row[8] != GIVEN_UP:
            header = _header(row[-1])
            return header.previous if header is not None else None
    return None


def _declare(db: sqlite3.Connection, run: Iterable[_Place], digest: bytes) -> None:
    """Leave one row for a run, for the uplink to declare."""
    places = list(run)
    chain, last = places[0].chain or (0, 0), places[-1].sequence
    top = db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM batch").fetchone()[0]
    db.execute(
        f"INSERT INTO batch ({_COLUMNS}) VALUES (?,?,?,?,?,?,0,?,?,0,0,0,?,x'')",  # noqa: S608 - a constant
        (
            top,
            *chain,
            last,
            digest,
            bytes(len(digest)),
            sum(place.cells for place in places),
            GIVEN_UP,
            places[0].sequence,
        ),
    )


def _say(mended: Mended, aside: Path) -> None:
    _log.error(
        "%s",
        tr(
            f"the spool's file was damaged and has been mended: {mended.kept} messages are whole; "
            f"{mended.lost} that waited are not ({mended.values} values) and are declared lost; the "
            f"damaged file is kept as {aside.name}; check the disk",
            f"缓存库文件曾损坏，现已修复：{mended.kept} 条消息完好；{mended.lost} 条等待中的已损坏"
            f"（{mended.values} 个值），声明为丢失；损坏的文件保留为 {aside.name}；请检查磁盘",
        ),
    )
    if mended.epoch_ends:
        _log.error(
            "%s",
            tr(
                "the chains' own records were hit as well: a new epoch begins, counters take new "
                "baselines",
                "链的记录也受损：将开启新纪元，计数器从新基线开始",
            ),
        )
