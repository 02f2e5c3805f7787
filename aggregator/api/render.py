"""Series and arrivals as JSON that loses nothing in a browser.

Times are RFC 3339 in UTC. Whole numbers beyond 2**53 are written as text, because
JavaScript would round them. What is absent is null, never 0.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from aggregator.api.knowledge import Arrival, Notice, Sheet, Source
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey
from protocols.frame import SECOND, Ints

_SAFE: Final = 2**53 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = "9999-12-31T23:59:59Z"


def encode(document: dict[str, Any]) -> bytes:
    """Return compact UTF-8 JSON.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def time_text(ns: int) -> str:
    """Return a moment as RFC 3339 in UTC, with nanoseconds only where there are any."""
    seconds, rest = divmod(ns, SECOND)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return _LAST  # "without end" in a policy lies beyond what a calendar year can hold
    fraction = f".{rest:09d}" if rest else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def times_text(times: Ints) -> list[str]:
    """Return a column of moments as RFC 3339 in UTC."""
    whole = not np.any(times % SECOND)
    texts = np.datetime_as_string(times.astype("datetime64[ns]"), unit="s" if whole else "ns")
    return [f"{text}Z" for text in texts.tolist()]


def column(values: FieldColumn) -> list[Any]:
    """Return a field's column as JSON values; what a row lacks is None."""
    if isinstance(values, list):
        return [text or None for text in values]
    if values.dtype == np.int64:
        return _integers(values.astype(np.int64))
    finite = np.isfinite(values)
    numbers: list[Any] = values.tolist()
    if not finite.all():
        for at in np.flatnonzero(~finite).tolist():
            numbers[at] = None
    return numbers


def _integers(values: Ints) -> list[Any]:
    numbers: list[Any] = values.tolist()
    for at in np.flatnonzero((values > _SAFE) | (values < -_SAFE)).tolist():
        numbers[at] = str(numbers[at])
    return numbers


def series(identity: str, bucket: str, key: SeriesKey) -> dict[str, Any]:
    """Return what names a series, as JSON."""
    return {
        "id": identity,
        "bucket": bucket,
        "measurement": key.measurement,
        "tags": dict(key.tags),
    }


def rows(block: SeriesBlock) -> dict[str, Any]:
    """Return a block as columns: `time` and one array per field."""
    return {
        "time": times_text(block.time),
        "fields": {name: column(values) for name, values in block.fields.items()},
    }


def newest(block: SeriesBlock) -> dict[str, Any]:
    """Return the last row of a block as single values; `time` is None where there is none."""
    if not len(block):
        return {"time": None, "fields": {}}
    cells = {name: column(values[-1:])[0] for name, values in block.fields.items()}
    return {
        "time": time_text(int(block.time[-1])),
        "fields": {name: cell for name, cell in cells.items() if cell is not None},
    }


def arrival(each: Arrival, sheets: int) -> dict[str, Any]:
    """Return one agent with its newest `sheets` release sheets."""
    return {
        "factory": each.factory,
        "agent": each.agent,
        "name": each.name,
        "trust": each.trust,
        "online": each.online,
        "last_received": _optional_time(each.last_received_ns),
        "last_slot_end": _optional_time(each.last_slot_end_ns),
        "batches": each.batches,
        "values": each.values,
        "refused": each.refused,
        "sheet_count": len(each.sheets),
        "newest_sheet": each.sheets[0].hash if each.sheets else None,
        "sheets": [_sheet(sheet) for sheet in each.sheets[:sheets]],
    }


def source(each: Source) -> dict[str, Any]:
    """Return a batch behind a row."""
    return {
        "factory": each.factory,
        "agent": each.agent,
        "epoch": each.epoch,
        "stream": each.stream,
        "sequence": each.sequence,
        "digest": each.digest,
        "log_place": each.log_place,
        "start": time_text(each.start_ns),
        "end": time_text(each.end_ns),
        "received": time_text(each.received_ns),
        "sheet": each.sheet,
        "policy_version": each.policy_version,
        "points": list(each.points),
        "erased": each.erased,
    }


def notice(each: Notice) -> dict[str, Any]:
    """Return an alarm."""
    return {
        "id": each.id,
        "factory": each.factory,
        "agent": each.agent,
        "name": each.name,
        "kind": each.kind,
        "severity": each.severity,
        "since": time_text(each.since_ns),
        "until": _optional_time(each.until_ns),
        "epoch": _whole(each.epoch),
        "stream": _whole(each.stream),
        "first": _whole(each.first),
        "last": _whole(each.last),
        "text": each.text,
    }


def _sheet(sheet: Sheet) -> dict[str, Any]:
    points = [
        {
            "number": point.number,
            "equipment": point.equipment,
            "measurand": point.measurand,
            "unit": point.unit,
            "aggregate": point.aggregate,
            "window_s": point.window_s,
            "resolution": point.resolution,
            "retention_days": point.retention_days,
        }
        for point in sheet.points
    ]
    return {
        "hash": sheet.hash,
        "policy_version": sheet.policy_version,
        "purpose": sheet.purpose,
        "right": sheet.right,
        "valid_until": time_text(sheet.valid_until_ns),
        "received": time_text(sheet.received_ns),
        "points": points,
    }


def _whole(value: int) -> int | str:
    return str(value) if value > _SAFE else value


def _optional_time(ns: int | None) -> str | None:
    return None if ns is None else time_text(ns)
