"""Facts in the OpenAPI document: the one thing that is written over the API."""

from http import HTTPStatus
from typing import Any, Final

from aggregator.api.openapi_parts import (
    NAME,
    POSITION,
    TEXT,
    Operation,
    Schema,
    array_of,
    integer,
    query,
    record,
    ref,
)
from aggregator.facts import KINDS

_LABEL: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
_DAY: Final[Schema] = {
    "type": "string",
    "pattern": "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$",
}
_OPTIONAL: Final[Schema] = {"type": ["string", "null"]}
_ENTERED: Final[dict[str, Schema]] = {
    "enterprise": {**_LABEL, "description": "the brain's name of the firm"},
    "site": {**_LABEL, "default": "main"},
    "equipment": {**_LABEL, "description": "public label; for facts of one equipment only"},
    "name": {"enum": list(KINDS)},
    "value": {
        "type": ["string", "number"],
        "description": "a decimal number; counts as it is written",
    },
    "from": {**_DAY, "description": "first local day"},
    "until": {**_DAY, "description": "first day it no longer holds; needed for a period"},
    "source": {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "description": "where the number is from",
    },
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Fact": record(
        **dict.fromkeys(("enterprise", "site", "name", "value", "from", "source", "entered"), TEXT),
        equipment=_OPTIONAL,
        until=_OPTIONAL,
    ),
    "FactList": record(facts=array_of(ref("Fact")), next=POSITION),
    "FactsTaken": record(facts=array_of(ref("Fact"))),
    "NewFacts": {
        **record(
            facts={
                "type": "array",
                "minItems": 1,
                "maxItems": 100,
                "items": {
                    "type": "object",
                    "required": ["enterprise", "name", "value", "from", "source"],
                    "properties": _ENTERED,
                    "additionalProperties": False,
                },
            }
        ),
        "additionalProperties": False,
    },
}

_REFUSALS: Final = (HTTPStatus.FORBIDDEN,)

OPERATIONS: Final[dict[str, tuple[Operation, dict[str, Any]]]] = {
    "get": (
        (
            "What people entered, with source and date.",
            "FactList",
            [
                query("enterprise", _LABEL, "only of this firm"),
                query("name", NAME, "only of this name"),
                query("limit", integer(1, 1000, 200), "page size"),
                query(
                    "cursor",
                    {"type": "string", "pattern": "^[0-9]{1,9}$"},
                    "`next` of the page before",
                ),
            ],
            "application/json",
            (HTTPStatus.UNPROCESSABLE_ENTITY,),
        ),
        {},
    ),
    "put": (
        (
            "Enter facts, all or none; one of the same place and first day is replaced.",
            "FactsTaken",
            [],
            "application/json",
            (
                *_REFUSALS,
                HTTPStatus.UNPROCESSABLE_ENTITY,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            ),
        ),
        {
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": ref("NewFacts")}},
            }
        },
    ),
    "delete": (
        (
            "Remove one fact; what was computed from it becomes absent.",
            "",
            [
                query("enterprise", _LABEL, "whose it is", required=True),
                query("site", _LABEL, "`main` by default"),
                query("equipment", _LABEL, "of a fact of one equipment"),
                query("name", NAME, "its name", required=True),
                query("from", _DAY, "its first day", required=True),
            ],
            "application/json",
            (*_REFUSALS, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
        ),
        {},
    ),
}
