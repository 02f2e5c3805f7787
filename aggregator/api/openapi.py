"""The OpenAPI 3.1 document of the API; a test holds it against the code and real answers."""

from http import HTTPStatus
from typing import Any, Final

Schema = dict[str, Any]

SERIES_ID: Final = "^[A-Za-z0-9_-]{22}$"

_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_OPTIONAL_TIME: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_FLAG: Final[Schema] = {"type": "boolean"}
_HASH: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_OPAQUE: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_OPTIONAL_OPAQUE: Final[Schema] = {"type": ["string", "null"], "pattern": "^[0-9a-f]{32}$"}
_LARGE: Final[Schema] = {"type": ["integer", "string"]}
_POSITION: Final[Schema] = {"type": ["string", "null"]}
_COLUMNS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {
        "type": "array",
        "items": {"type": ["number", "string", "null"]},
    },
}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_SERIES: Final = {
    "id": {"type": "string", "pattern": SERIES_ID},
    "bucket": _TEXT,
    "measurement": _TEXT,
    "tags": {"type": "object", "additionalProperties": _TEXT},
}
_CELLS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["number", "string"]},
}

_SCHEMAS: Final[dict[str, Schema]] = {
    "Series": _object(**_SERIES),
    "Rows": _object(**_SERIES, time=_list(_TIME), fields=_COLUMNS, next=_OPTIONAL_TIME),
    "Steps": _object(**_SERIES, step_s=_COUNT, aggregate=_TEXT, time=_list(_TIME), fields=_COLUMNS),
    "Newest": _object(**_SERIES, time=_OPTIONAL_TIME, fields=_CELLS),
    "SeriesList": _object(series=_list(_ref("Series")), next=_POSITION),
    "NewestList": _object(now=_TIME, series=_list(_ref("Newest")), next=_POSITION),
    "Point": _object(
        number=_COUNT,
        equipment=_TEXT,
        measurand=_TEXT,
        unit=_TEXT,
        aggregate=_TEXT,
        window_s={"type": "number"},
        resolution=_TEXT,
        retention_days=_COUNT,
    ),
    "Sheet": _object(
        hash=_HASH,
        policy_version=_COUNT,
        purpose=_TEXT,
        right=_TEXT,
        valid_until=_TIME,
        received=_TIME,
        points=_list(_ref("Point")),
    ),
    "Agent": _object(
        factory=_OPAQUE,
        agent=_OPAQUE,
        name=_TEXT,
        online={"type": ["boolean", "null"]},
        last_received=_OPTIONAL_TIME,
        last_slot_end=_OPTIONAL_TIME,
        batches=_COUNT,
        values=_COUNT,
        refused=_COUNT,
        sheet_count=_COUNT,
        newest_sheet={"type": ["string", "null"]},
        sheets=_list(_ref("Sheet")),
    ),
    "AgentList": _object(now=_TIME, factories=_list(_ref("Agent")), next=_POSITION),
    "Alarm": _object(
        id=_COUNT,
        factory=_OPTIONAL_OPAQUE,
        agent=_OPTIONAL_OPAQUE,
        name=_TEXT,
        kind=_TEXT,
        severity={"enum": ["warning", "fault"]},
        since=_TIME,
        until=_OPTIONAL_TIME,
        epoch=_LARGE,
        stream=_LARGE,
        first=_LARGE,
        last=_LARGE,
        text=_object(en=_TEXT, zh=_TEXT),
    ),
    "AlarmList": _object(now=_TIME, open=_COUNT, alarms=_list(_ref("Alarm")), next=_POSITION),
    "Source": _object(
        factory=_OPAQUE,
        agent=_OPAQUE,
        epoch=_COUNT,
        stream=_COUNT,
        sequence=_COUNT,
        digest=_HASH,
        log_place={"type": ["integer", "null"]},
        start=_TIME,
        end=_TIME,
        received=_TIME,
        sheet=_HASH,
        policy_version=_COUNT,
        points=_list(_COUNT),
        erased=_FLAG,
    ),
    "Provenance": _object(
        **_SERIES,
        start=_TIME,
        end=_TIME,
        factor={"type": ["string", "null"]},
        sources=_list(_ref("Source")),
    ),
    "Change": {
        "type": "object",
        "required": ["number", "at", "kind"],
        "properties": {
            "number": _COUNT,
            "at": _TIME,
            "kind": {"enum": ["rows", "removed", "measurement"]},
            "series": _ref("Series"),
            "first": _TIME,
            "last": _TIME,
            "rows": _COUNT,
            "bucket": _TEXT,
            "measurement": _TEXT,
        },
    },
    "ChangeList": _object(changes=_list(_ref("Change")), next=_TEXT, head=_TEXT),
    "Health": _object(
        now=_TIME,
        status={"enum": ["ok", "degraded"]},
        parts={
            "type": "object",
            "additionalProperties": {"enum": ["ok", "unavailable"]},
        },
    ),
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "remedy"],
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "remedy": _TEXT,
            "parameter": _TEXT,
        },
    },
}


def _query(name: str, schema: Schema, about: str, *, required: bool = False) -> Schema:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "schema": schema,
        "description": about,
    }


def _integer(low: int, high: int, default: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


_MOMENT: Final[Schema] = {
    "type": "string",
    "pattern": "^([0-9]{1,18}|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)$",
}
_NAME: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]{0,63}$"}
_NAMES: Final[Schema] = {
    "type": "string",
    "pattern": "^[A-Za-z][A-Za-z0-9_]{0,31}(,[A-Za-z][A-Za-z0-9_]{0,31}){0,7}$",
}
_CURSOR: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,160}$"}

_START: Final = _query("start", _MOMENT, "RFC 3339 in UTC, or nanoseconds since 1970; included")
_END: Final = _query("end", _MOMENT, "the same; not included")
_PAGE_CURSOR: Final = _query("cursor", _CURSOR, "`next` of the page before")
_MEASUREMENT: Final = _query("measurement", _NAME, "only series of this measurement")
_FIELDS: Final = _query("fields", _NAMES, "field names joined by commas; all by default")
_ID: Final[Schema] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": SERIES_ID},
    "description": "from /series",
}
_LAST_EVENT: Final[Schema] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "schema": _CURSOR,
    "description": "id of the last event that was received",
}

Operation = tuple[str, str, list[Schema], str, tuple[HTTPStatus, ...]]

_OPERATIONS: Final[dict[str, Operation]] = {
    "/series": (
        "List series.",
        "SeriesList",
        [_MEASUREMENT, _query("limit", _integer(1, 1000, 500), "page size"), _PAGE_CURSOR],
        "application/json",
        (),
    ),
    "/series/{id}/rows": (
        "A series' rows of a period, as columns; the last day by default.",
        "Rows",
        [_ID, _START, _END, _FIELDS, _query("limit", _integer(1, 10_000, 1000), "most rows")],
        "application/json",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/series/{id}/steps": (
        "Numeric fields of a series, aggregated over even steps; steps without data are absent.",
        "Steps",
        [
            _ID,
            _query("field", _NAMES, "field names joined by commas", required=True),
            _START,
            _END,
            _query(
                "step",
                {"type": "string", "pattern": "^[1-9][0-9]{0,2}(m|h)$", "default": "15m"},
                "number and s, m, h or d; 1s to 366d",
            ),
            _query(
                "aggregate",
                {"enum": ["mean", "sum", "min", "max", "last"], "default": "sum"},
                "what of each step",
            ),
        ],
        "application/json",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/series/{id}/newest": (
        "The newest row of a series.",
        "Newest",
        [_ID],
        "application/json",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/series/{id}/provenance": (
        "The batches that a period's rows come from; those of the newest row by default.",
        "Provenance",
        [_ID, _START, _END],
        "application/json",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/series/{id}/export": (
        "A period's rows as CSV, however many; a transfer that breaks off is not complete.",
        "",
        [_ID, _START, _END, _FIELDS],
        "text/csv",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/newest": (
        "The newest row of every series.",
        "NewestList",
        [_MEASUREMENT, _query("limit", _integer(1, 500, 200), "page size"), _PAGE_CURSOR],
        "application/json",
        (),
    ),
    "/factories": (
        "The agents known, and under which release sheets they send.",
        "AgentList",
        [
            _query("limit", _integer(1, 500, 100), "page size"),
            _PAGE_CURSOR,
            _query("sheets", _integer(0, 20, 3), "release sheets of each; limit x sheets <= 500"),
        ],
        "application/json",
        (),
    ),
    "/alarms": (
        "Early warning: the open alarms, newest first; with `start`, also those that ended since.",
        "AlarmList",
        [
            _query("start", _MOMENT, "RFC 3339 in UTC, or nanoseconds since 1970"),
            _query("limit", _integer(1, 1000, 200), "page size"),
            _PAGE_CURSOR,
        ],
        "application/json",
        (),
    ),
    "/changes": (
        "What was written, revised or removed after a position; from the oldest kept by default.",
        "ChangeList",
        [
            _query("cursor", _CURSOR, "`next` or `head` of an answer before"),
            _query("limit", _integer(0, 5000, 500), "most changes"),
        ],
        "application/json",
        (HTTPStatus.GONE,),
    ),
    "/stream": (
        "The same as server-sent events, as they come; from now by default.",
        "",
        [_query("cursor", _CURSOR, "position to begin after"), _LAST_EVENT],
        "text/event-stream",
        (HTTPStatus.GONE,),
    ),
    "/metrics": (
        "Prometheus metrics; for tokens that see everything.",
        "",
        [],
        "text/plain",
        (HTTPStatus.FORBIDDEN,),
    ),
    "/health": (
        "Whether stores and ledger answer.",
        "Health",
        [],
        "application/json",
        (),
    ),
    "/openapi.json": ("This document.", "", [], "application/json", ()),
}
_ALWAYS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


def document(version: str) -> Schema:
    """Return the whole document.

    Args:
        version: of Millgate.
    """
    paths = {path: {"get": _operation(path, *each)} for path, each in _OPERATIONS.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Millgate",
            "version": version,
            "description": "Future-factory and carbon series of factories that release them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    path: str,
    about: str,
    schema: str,
    parameters: list[Schema],
    kind: str,
    refusals: tuple[HTTPStatus, ...],
) -> Schema:
    if kind == "application/json":
        good: Schema = {kind: {"schema": _ref(schema) if schema else {"type": "object"}}}
    else:
        good = {kind: {"schema": {"type": "string"}}}
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    answers = {"200": {"description": about, "content": good}}
    for status in sorted({*_ALWAYS, *refusals}):
        content = problem
        if path == "/health" and status is HTTPStatus.SERVICE_UNAVAILABLE:
            content = problem | {"application/json": {"schema": _ref("Health")}}
        answers[str(int(status))] = {"description": status.phrase, "content": content}
    name = path.strip("/").replace("/{id}", "").replace("/", "_").replace(".json", "")
    return {
        "operationId": name,
        "summary": about,
        "parameters": parameters,
        "responses": answers,
    }
