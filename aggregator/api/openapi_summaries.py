"""Summaries and rankings in the OpenAPI document."""

from typing import Final

from aggregator.api.firms import KINDS
from aggregator.api.openapi_parts import (
    COUNT,
    END,
    ENTERPRISE,
    FLAG,
    LABEL,
    PAGE_CURSOR,
    POSITION,
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
from aggregator.api.periods import EACH

_NUMBER: Final[Schema] = {"type": ["number", "null"]}
_NUMBERS: Final[Schema] = array_of(_NUMBER)
_COLUMN: Final[Schema] = {"type": ["array", "null"], "items": _NUMBER}
_SPAN: Final = {"start": TIME, "end": TIME}
_OPTIONAL_TEXT: Final[Schema] = {"type": ["string", "null"]}
_UNTIL: Final[Schema] = {"type": "integer", "minimum": 2000, "maximum": 2100}
_PLACE: Final = (ENTERPRISE, SITE)
_ABOUT_CARBON: Final = (
    "Carbon by scope, method, medium and factor; the last day by default. Superseded results "
    "are in no sum; location-based and market-based are two views of the same carbon."
)
_ABOUT_PEAK: Final = (
    "When a firm's carbon is expected to peak, in scenarios with intervals; `peak_year` is null "
    "where the peak is not identified, and `reason` says why."
)
_ABOUT_RANKINGS: Final = (
    "Firms by one figure of a local month or year. Who sees only some firms is shown only "
    "these; places and mean are told only where they give away no other firm."
)
_TOTALS: Final = (
    "scope1_kg",
    "scope2_location_kg",
    "scope2_market_kg",
    "location_kg",
    "market_kg",
    "export_kg",
)

SCHEMAS: Final[dict[str, Schema]] = {
    "Oee": {
        "type": "object",
        "required": ["enterprise", "coverage", "hours", "used", "oee"],
        "properties": {
            "enterprise": TEXT,
            "site": TEXT,
            "equipment": TEXT,
            "calendars": array_of(TEXT),
            "coverage": _NUMBER,
            "hours": COUNT,
            "used": COUNT,
            **dict.fromkeys(
                (
                    "apt_s",
                    "aupt_s",
                    "pbt_s",
                    "net_s",
                    "valuable_s",
                    "qty_total",
                    "qty_good",
                    "availability",
                    "performance",
                    "quality_ratio",
                    "oee",
                    "nee",
                ),
                _NUMBER,
            ),
        },
    },
    "OeeList": record(now=TIME, **_SPAN, by=TEXT, items=array_of(ref("Oee")), next=POSITION),
    "CarbonLine": record(
        scope=_OPTIONAL_TEXT,
        method={"enum": ["location", "market", "direct", "export"]},
        medium=TEXT,
        gas=TEXT,
        factor_set=TEXT,
        factor_id=TEXT,
        factor_value=_NUMBER,
        factor_unit=TEXT,
        factor_grade=TEXT,
        co2e_kg=_NUMBERS,
    ),
    "CarbonSite": record(
        enterprise=TEXT,
        site=TEXT,
        coverage=_NUMBER,
        estimated_share=_NUMBER,
        totals=record(**dict.fromkeys(_TOTALS, _COLUMN)),
        lines=array_of(ref("CarbonLine")),
    ),
    "CarbonSummary": record(
        now=TIME,
        **_SPAN,
        each={"enum": list(EACH)},
        periods=array_of(record(**_SPAN)),
        sites=array_of(ref("CarbonSite")),
        factor_sets={
            "type": "object",
            "additionalProperties": record(
                publication=TEXT, data_year={"type": ["integer", "null"]}
            ),
        },
        next=POSITION,
    ),
    "Scenario": record(
        name=TEXT,
        reduction={"type": "number"},
        peak_year={"type": ["integer", "null"]},
        reason={"enum": [None, "edge", "flat"]},
        p10_kg=_NUMBERS,
        p50_kg=_NUMBERS,
        p90_kg=_NUMBERS,
    ),
    "Peak": record(
        now=TIME,
        enterprise=TEXT,
        identified=FLAG,
        reason={"enum": [None, "months"]},
        model=TEXT,
        months=COUNT,
        least_months=COUNT,
        growth=_NUMBER,
        error=_NUMBER,
        fading={"type": "number"},
        years=array_of(COUNT),
        observed=array_of(FLAG),
        scenarios=array_of(ref("Scenario")),
    ),
    "Ranked": record(
        enterprise=TEXT,
        value=_NUMBER,
        coverage={"type": "number", "minimum": 0, "maximum": 1},
        rank={"type": ["integer", "null"], "minimum": 1},
        excluded={"enum": [None, "absent", "coverage"]},
    ),
    "Ranking": record(
        now=TIME,
        **_SPAN,
        kind={"enum": list(KINDS)},
        period=TEXT,
        finished=FLAG,
        unit=TEXT,
        better={"enum": ["higher", "lower"]},
        least_coverage={"type": "number"},
        least_ranked=COUNT,
        taking_part={"type": ["integer", "null"], "minimum": 0},
        mean=_NUMBER,
        protected={
            "enum": [None, "firms", "p-percent", "dominance", "unfinished", "protected"],
        },
        firms=array_of(ref("Ranked")),
        next=POSITION,
    ),
}

OPERATIONS: Final[dict[str, Operation]] = {
    "/oee": (
        "OEE over a period, of sums over hours, with its factors; the last day by default.",
        "OeeList",
        [
            START,
            END,
            query(
                "by",
                {"enum": ["equipment", "site", "enterprise"], "default": "equipment"},
                "what is added up",
            ),
            *_PLACE,
            query("equipment", LABEL, "only this equipment"),
            query("limit", integer(1, 500, 100), "page size"),
            PAGE_CURSOR,
        ],
        "application/json",
        (),
    ),
    "/carbon/summary": (
        _ABOUT_CARBON,
        "CarbonSummary",
        [
            START,
            END,
            query(
                "each",
                {"enum": list(EACH), "default": "whole"},
                "one sum, or one for each local day or month, at most 400",
            ),
            *_PLACE,
            query("limit", integer(1, 100, 20), "sites in a page"),
            PAGE_CURSOR,
        ],
        "application/json",
        (),
    ),
    "/carbon/peak": (
        _ABOUT_PEAK,
        "Peak",
        [
            query("enterprise", LABEL, "whose carbon", required=True),
            query("site", LABEL, "of one site only"),
            query("until", _UNTIL, "the last year to look at; 15 years ahead by default"),
        ],
        "application/json",
        (),
    ),
    "/rankings": (
        _ABOUT_RANKINGS,
        "Ranking",
        [
            query("kind", {"enum": list(KINDS), "default": "oee"}, "what firms are ranked by"),
            query(
                "period",
                {"type": "string", "pattern": "^20[0-9]{2}(-(0[1-9]|1[0-2]))?$"},
                "month (oee, co2e) or year (the others); the present one by default",
            ),
            query("limit", integer(1, 1000, 200), "most firms"),
            query(
                "cursor", {"type": "string", "pattern": "^[0-9]{1,9}$"}, "`next` of the page before"
            ),
        ],
        "application/json",
        (),
    ),
}
