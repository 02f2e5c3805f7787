"""The OpenAPI 3.1 document of the API; a test holds it against the code and real answers."""

from http import HTTPStatus
from typing import Final

from aggregator.api import openapi_facts, openapi_summaries, parquet
from aggregator.api.export import FORMATS
from aggregator.api.filling import FILLS
from aggregator.api.openapi_parts import (
    COLUMNS,
    COUNT,
    CURSOR,
    END,
    ENTERPRISE,
    FIELDS,
    FLAG,
    HASH,
    ID,
    LARGE,
    LAST_EVENT,
    MEASUREMENT,
    MOMENT,
    NAMES,
    OPAQUE,
    OPTIONAL_OPAQUE,
    OPTIONAL_TIME,
    PAGE_CURSOR,
    POSITION,
    SERIES_ID,
    SITE,
    START,
    TEXT,
    TIME,
    Operation,
    Schema,
    array_of,
    integer,
    query,
    record,
    ref,
)
from aggregator.trust import Trust

_SERIES: Final = {
    "id": {"type": "string", "pattern": SERIES_ID},
    "bucket": TEXT,
    "measurement": TEXT,
    "tags": {"type": "object", "additionalProperties": TEXT},
}
_ZONE: Final[Schema] = {
    "type": "string",
    "description": "time zone of the factories, such as Asia/Shanghai; times are in UTC",
}
_CELLS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["number", "string"]},
}

_SCHEMAS: Final[dict[str, Schema]] = {
    "Series": record(**_SERIES),
    "Rows": record(**_SERIES, time=array_of(TIME), fields=COLUMNS, next=OPTIONAL_TIME),
    "Steps": {
        **record(**_SERIES, step_s=COUNT, aggregate=TEXT, time=array_of(TIME), fields=COLUMNS),
        "description": "`filled` tells, with `fill` previous or linear, which cells were filled in.",
    },
    "Newest": record(**_SERIES, time=OPTIONAL_TIME, fields=_CELLS),
    "SeriesList": record(series=array_of(ref("Series")), next=POSITION),
    "NewestList": record(now=TIME, zone=_ZONE, series=array_of(ref("Newest")), next=POSITION),
    "Point": record(
        number=COUNT,
        equipment=TEXT,
        measurand=TEXT,
        unit=TEXT,
        aggregate=TEXT,
        window_s={"type": "number"},
        resolution=TEXT,
        retention_days=COUNT,
    ),
    "Sheet": record(
        hash=HASH,
        policy_version=COUNT,
        purpose=TEXT,
        right=TEXT,
        valid_until=TIME,
        received=TIME,
        points=array_of(ref("Point")),
    ),
    "Agent": record(
        factory=OPAQUE,
        agent=OPAQUE,
        name=TEXT,
        trust={"enum": list(Trust)},
        online={"type": ["boolean", "null"]},
        last_received=OPTIONAL_TIME,
        last_slot_end=OPTIONAL_TIME,
        batches=COUNT,
        values=COUNT,
        refused=COUNT,
        sheet_count=COUNT,
        newest_sheet={"type": ["string", "null"]},
        sheets=array_of(ref("Sheet")),
    ),
    "AgentList": record(now=TIME, factories=array_of(ref("Agent")), next=POSITION),
    "Alarm": record(
        id=COUNT,
        factory=OPTIONAL_OPAQUE,
        agent=OPTIONAL_OPAQUE,
        name=TEXT,
        kind=TEXT,
        severity={"enum": ["warning", "fault"]},
        since=TIME,
        until=OPTIONAL_TIME,
        epoch=LARGE,
        stream=LARGE,
        first=LARGE,
        last=LARGE,
        text=record(en=TEXT, zh=TEXT),
    ),
    "AlarmList": record(now=TIME, open=COUNT, alarms=array_of(ref("Alarm")), next=POSITION),
    "Source": record(
        factory=OPAQUE,
        agent=OPAQUE,
        epoch=COUNT,
        stream=COUNT,
        sequence=COUNT,
        digest=HASH,
        log_place={"type": ["integer", "null"]},
        start=TIME,
        end=TIME,
        received=TIME,
        sheet=HASH,
        policy_version=COUNT,
        points=array_of(COUNT),
        erased=FLAG,
    ),
    "Provenance": record(
        **_SERIES,
        start=TIME,
        end=TIME,
        factor={"type": ["string", "null"]},
        sources=array_of(ref("Source")),
        more=FLAG,
    ),
    "Change": {
        "type": "object",
        "required": ["number", "at", "kind"],
        "properties": {
            "number": COUNT,
            "at": TIME,
            "kind": {"enum": ["rows", "removed", "measurement"]},
            "series": ref("Series"),
            "first": TIME,
            "last": TIME,
            "rows": COUNT,
            "bucket": TEXT,
            "measurement": TEXT,
        },
    },
    "ChangeList": record(changes=array_of(ref("Change")), next=TEXT, head=TEXT),
    "Health": record(
        now=TIME,
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
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer"},
            "remedy": TEXT,
            "parameter": TEXT,
            "faults": array_of(record(where=TEXT, title=TEXT, remedy=TEXT)),
        },
    },
}


_OPERATIONS: Final[dict[str, Operation]] = {
    "/series": (
        "List series.",
        "SeriesList",
        [
            MEASUREMENT,
            ENTERPRISE,
            SITE,
            query("limit", integer(1, 1000, 500), "page size"),
            PAGE_CURSOR,
        ],
        "application/json",
        (),
    ),
    "/series/{id}/rows": (
        "A series' rows of a period, as columns; the last day by default.",
        "Rows",
        [ID, START, END, FIELDS, query("limit", integer(1, 10_000, 1000), "most rows")],
        "application/json",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/series/{id}/steps": (
        "Numeric fields of a series, aggregated over even steps; steps without data are absent.",
        "Steps",
        [
            ID,
            query(
                "field",
                NAMES,
                "field names joined by commas; unknown ones are refused",
                required=True,
            ),
            SITE,
            START,
            END,
            ENTERPRISE,
            query(
                "step",
                {"type": "string", "pattern": "^[1-9][0-9]{0,2}(m|h)$", "default": "15m"},
                "number and s, m, h or d; 1s to 366d",
            ),
            query(
                "aggregate",
                {"enum": ["mean", "sum", "min", "max", "last"], "default": "sum"},
                "what of each step",
            ),
            query(
                "fill",
                {"enum": list(FILLS), "default": "none"},
                "steps without data: left out, null, the value before, or between the neighbours",
            ),
        ],
        "application/json",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/series/{id}/newest": (
        "The newest row of a series.",
        "Newest",
        [ID],
        "application/json",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/series/{id}/provenance": (
        "The batches that a period's rows come from, of many the newest; those of the newest row by default.",
        "Provenance",
        [ID, START, END],
        "application/json",
        (HTTPStatus.NOT_FOUND,),
    ),
    "/series/{id}/export": (
        "A period's rows as a file, however many; a transfer that breaks off is not complete.",
        "",
        [
            ID,
            SITE,
            START,
            END,
            ENTERPRISE,
            FIELDS,
            query("format", {"enum": list(FORMATS), "default": "csv"}, "of the file"),
        ],
        "text/csv",
        (HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED),
    ),
    "/newest": (
        "The newest row of every series, or of those of a firm or site.",
        "NewestList",
        [
            MEASUREMENT,
            ENTERPRISE,
            SITE,
            query("limit", integer(1, 500, 200), "page size"),
            PAGE_CURSOR,
        ],
        "application/json",
        (),
    ),
    "/factories": (
        "The agents known, and under which release sheets they send.",
        "AgentList",
        [
            query("limit", integer(1, 500, 100), "page size"),
            PAGE_CURSOR,
            query("sheets", integer(0, 20, 3), "release sheets of each; limit x sheets <= 500"),
        ],
        "application/json",
        (),
    ),
    "/alarms": (
        "Early warning: the open alarms, newest first; with `start`, also those that ended since.",
        "AlarmList",
        [
            query("start", MOMENT, "RFC 3339 in UTC, or nanoseconds since 1970"),
            query("limit", integer(1, 1000, 200), "page size"),
            PAGE_CURSOR,
        ],
        "application/json",
        (),
    ),
    "/changes": (
        "What was written, revised or removed after a position; from the oldest kept by default.",
        "ChangeList",
        [
            query("cursor", CURSOR, "`next` or `head` of an answer before"),
            query("limit", integer(0, 5000, 500), "most changes"),
        ],
        "application/json",
        (HTTPStatus.GONE,),
    ),
    "/stream": (
        "The same as server-sent events, as they come; from now by default.",
        "",
        [query("cursor", CURSOR, "position to begin after"), LAST_EVENT],
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
    HTTPStatus.REQUEST_URI_TOO_LONG,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


def document(version: str) -> Schema:
    """Return the whole document.

    Args:
        version: of Millgate.
    """
    operations = _OPERATIONS | openapi_summaries.OPERATIONS
    paths = {path: {"get": _operation(path, *each)} for path, each in operations.items()}
    paths["/facts"] = {
        method: _operation("/facts", *each, method=method) | more
        for method, (each, more) in openapi_facts.OPERATIONS.items()
    }
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
            "schemas": _SCHEMAS | openapi_summaries.SCHEMAS | openapi_facts.SCHEMAS,
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
    *,
    method: str = "get",
) -> Schema:
    if kind == "application/json":
        good: Schema = {kind: {"schema": ref(schema) if schema else {"type": "object"}}}
    else:
        good = {kind: {"schema": {"type": "string"}}}
    if path.endswith("/export"):
        good[parquet.CONTENT_TYPE] = {"schema": {"type": "string", "format": "binary"}}
    problem = {"application/problem+json": {"schema": ref("Problem")}}
    answers = {"200": {"description": about, "content": good}}
    for status in sorted({*_ALWAYS, *refusals}):
        content = problem
        if status is HTTPStatus.BAD_REQUEST:
            # What is not HTTP is refused before anybody here sees it.
            content = problem | {"text/plain": {"schema": {"type": "string"}}}
        if path == "/health" and status is HTTPStatus.SERVICE_UNAVAILABLE:
            content = problem | {"application/json": {"schema": ref("Health")}}
        answers[str(int(status))] = {"description": status.phrase, "content": content}
    name = path.strip("/").replace("/{id}", "").replace("/", "_").replace(".json", "")
    return {
        "operationId": name if method == "get" else f"{method}_{name}",
        "summary": about,
        "parameters": parameters,
        "responses": answers,
    }
