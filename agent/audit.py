"""What left the house, read back from the spool and its archive with the firm's audit key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import numpy as np

from agent.spool import ACKNOWLEDGED, LOST, REFUSED, WAITING, Spool
from protocols import batch
from protocols.batch import NO_VALUE, UNCERTAIN, Block
from protocols.language import tr
from security.envelope import SHEET, Sealed, digest, open_sealed, parse, unpad
from security.keys import OpeningKey
from security.policy.bundle import signed_sheet
from security.policy.compiled import SheetPoint, unpack_sheet

COLUMNS: Final = (
    "state",
    "epoch",
    "stream",
    "sequence",
    "message",
    "slot_start",
    "slot_s",
    "number",
    "equipment",
    "measurand",
    "part",
    "unit",
    "value",
    "quality",
    "slots",
)


@dataclass(frozen=True, slots=True)
class Left:
    """One sealed message, opened.

    Attributes:
        status: what became of it, see `agent.spool`.
        sealed: as it was signed.
        digest: its hash.
        size: bytes of the whole message.
        window_s: slot length; 0 for a sheet.
        blocks: what it holds; empty for a sheet.
        points: the sheet's lines by number.
    """

    status: int
    sealed: Sealed
    digest: bytes
    size: int
    window_s: int
    blocks: Sequence[Block]
    points: dict[int, SheetPoint]

    @property
    def values(self) -> int:
        """How many values it holds."""
        return sum(block.values for block in self.blocks)


def status_word(status: int) -> str:
    """Return what became of a message, for a person."""
    return {
        WAITING: tr("waiting", "等待"),
        ACKNOWLEDGED: tr("received", "已收妥"),
        REFUSED: tr("refused", "被拒"),
        LOST: tr("never sent", "未发出"),
    }[status]


def read_back(spool: Spool, key: OpeningKey, from_s: int, to_s: int) -> Iterator[Left]:
    """Yield what is in the spool and its archive of a span of slots, [from, to), opened.

    Sheets are of no span and always come.

    Raises:
        CannotOpen, Malformed: when a message is not what was sealed to this key.
    """
    sheets: dict[bytes, tuple[dict[int, int], dict[int, SheetPoint]]] = {}
    for status, data in spool.archived():
        sealed = parse(data)
        content = unpad(open_sealed(sealed, key))
        header = sealed.header
        if sealed.content_type == SHEET:
            sheet = signed_sheet(unpack_sheet(content)).sheet
            sheets[header.sheet_hash] = (
                {stream.id: stream.window_s for stream in sheet.streams},
                {point.number: point for point in sheet.points},
            )
            yield Left(status, sealed, digest(data), len(data), 0, (), {})
        elif header.window[0] < to_s and header.window[1] > from_s:
            windows, points = sheets.get(header.sheet_hash, ({}, {}))
            blocks = batch.decode(content)
            slots = sum(block.rows for block in blocks)
            window_s = windows.get(header.stream, (header.window[1] - header.window[0]) // slots)
            yield Left(status, sealed, digest(data), len(data), window_s, blocks, points)


def rows(left: Left) -> Iterator[tuple[str, ...]]:
    """Yield one row of COLUMNS for every cell of a message, those without a value included."""
    header = left.sealed.header
    head = (
        status_word(left.status),
        str(header.epoch),
        str(header.stream),
        str(header.sequence),
        left.digest.hex(),
    )
    for block in left.blocks:
        spans = block.span_matrix()
        for row, column in np.ndindex(block.mantissa.shape):
            number = int(block.numbers[column])
            start = datetime.fromtimestamp((block.slot + row) * left.window_s, UTC)
            quality = int(block.quality[row, column])
            yield (
                *head,
                start.strftime("%Y-%m-%dT%H:%M:%SZ"),
                str(left.window_s),
                *_labels(number, left.points.get(number)),
                _value(int(block.mantissa[row, column]), quality, left.points.get(number)),
                {NO_VALUE: "missing", UNCERTAIN: "uncertain"}.get(quality, "good"),
                str(spans[row, column]),
            )


def _labels(number: int, point: SheetPoint | None) -> tuple[str, ...]:
    if point is None:
        return str(number), "", "", "", ""
    return str(number), point.equipment, point.measurand, point.part, point.unit


def _value(mantissa: int, quality: int, point: SheetPoint | None) -> str:
    if quality == NO_VALUE:
        return ""
    exponent = point.exponent if point is not None else 0
    return format(Decimal(mantissa).scaleb(exponent), "f")
