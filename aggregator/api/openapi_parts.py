"""What OpenAPI descriptions are made of: types, parameters, references."""

from http import HTTPStatus
from typing import Any, Final

Schema = dict[str, Any]

SERIES_ID: Final = "^[A-Za-z0-9_-]{22}$"

TIME: Final[Schema] = {"type": "string", "format": "date-time"}
OPTIONAL_TIME: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
HASH: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
OPAQUE: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
OPTIONAL_OPAQUE: Final[Schema] = {"type": ["string", "null"], "pattern": "^[0-9a-f]{32}$"}
LARGE: Final[Schema] = {"type": ["integer", "string"]}
POSITION: Final[Schema] = {"type": ["string", "null"]}
COLUMNS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {
        "type": "array",
        "items": {"type": ["number", "string", "null"]},
    },
}


def record(**properties: Schema) -> Schema:
    """Return an object that has all of these properties."""
    return {"type": "object", "required": list(properties), "properties": properties}


def array_of(items: Schema) -> Schema:
    """Return an array."""
    return {"type": "array", "items": items}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def query(name: str, schema: Schema, about: str, *, required: bool = False) -> Schema:
    """Return a query parameter."""
    return {
        "name": name,
        "in": "query",
        "required": required,
        "schema": schema,
        "description": about,
    }


def integer(low: int, high: int, default: int) -> Schema:
    """Return a bounded whole number."""
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


MOMENT: Final[Schema] = {
    "type": "string",
    "pattern": "^([0-9]{1,18}|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)$",
}
NAME: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]{0,63}$"}
NAMES: Final[Schema] = {
    "type": "string",
    "pattern": "^[A-Za-z][A-Za-z0-9_]{0,31}(,[A-Za-z][A-Za-z0-9_]{0,31}){0,7}$",
}
CURSOR: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,160}$"}

START: Final = query("start", MOMENT, "RFC 3339 in UTC, or nanoseconds since 1970; included")
END: Final = query("end", MOMENT, "the same; not included")
PAGE_CURSOR: Final = query("cursor", CURSOR, "`next` of the page before")
MEASUREMENT: Final = query(
    "measurement", NAME, "only series of this measurement; one that there is none of is refused"
)
LABEL: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
ENTERPRISE: Final = query("enterprise", LABEL, "only this firm, by the brain's name of it")
SITE: Final = query("site", LABEL, "only this site")
FIELDS: Final = query(
    "fields", NAMES, "field names joined by commas; all by default; unknown ones are refused"
)
ID: Final[Schema] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": SERIES_ID},
    "description": "from /series",
}
LAST_EVENT: Final[Schema] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "schema": CURSOR,
    "description": "id of the last event that was received",
}

Operation = tuple[str, str, list[Schema], str, tuple[HTTPStatus, ...]]
"""(what it does, schema of the answer, parameters, content type, further refusals)"""
