"""A small client of the brain's API. One file, nothing but Python 3.11: copy it into your platform.

Example, a copy that stays in step:

    brain = Brain("https://brain.example:8750", token, ca_file="ca.pem")
    head = brain.head()
    for series in brain.series():
        store(series, brain.rows(series, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"))
    for change in brain.follow(head):
        apply(change)            # then keep change.position

What is absent is None, never 0.
"""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_TRIES = 5
_WAIT_S = 2.0
_LONGEST_WAIT_S = 60.0
_NOT_NOW = frozenset({429, 503})


class Refused(Exception):
    """The brain refuses a request.

    Attributes:
        status: the HTTP status.
        kind: the problem's lasting name, such as `position-gone`.
        remedy: what to do about it.
    """

    def __init__(self, status: int, kind: str, title: str, remedy: str) -> None:
        super().__init__(f"{title} — {remedy}" if remedy else title)
        self.status = status
        self.kind = kind
        self.remedy = remedy


class Unreachable(Exception):
    """The brain did not answer, however often it was asked: it is being restarted, or the way is cut."""


@dataclass(frozen=True)
class Series:
    """One series."""

    id: str
    bucket: str
    measurement: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One row: its time (RFC 3339, UTC) and its fields."""

    time: str
    fields: Mapping[str, float | str | None]


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        position: go on from here.
        kind: `rows` were written or revised, rows were `removed`, or a whole `measurement` was.
        series: None for a measurement.
        first, last: times of the first and the last row touched, both included.
        measurement: of the series, or all of whose series were removed.
    """

    position: str
    kind: str
    series: Series | None
    first: str
    last: str
    measurement: str


class Brain:
    """The API of one brain; its calls block, and ask again for half a minute where it is away.

    All of them raise `Refused`, and `Unreachable` after that half minute. A copy then goes on from
    the position of the last change that was applied.

    Args:
        url: such as https://brain.example:8750.
        token: of the API.
        ca_file: who vouches for the brain; None for the system's authorities.
        timeout_s: how long one request may take.
    """

    def __init__(
        self, url: str, token: str, *, ca_file: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self._url = f"{url.rstrip('/')}/api/v1"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s
        secure = url.startswith("https:")
        self._tls = ssl.create_default_context(cafile=ca_file) if secure else None

    def series(
        self, measurement: str = "", *, enterprise: str = "", site: str = ""
    ) -> Iterator[Series]:
        """Yield the series there are, optionally of one measurement, firm or site."""
        wanted = _given(measurement=measurement, enterprise=enterprise, site=site)
        for page in self._pages("/series", wanted):
            yield from map(_series, page["series"])

    def all_newest(
        self, measurement: str = "", *, enterprise: str = "", site: str = ""
    ) -> Iterator[tuple[Series, Row | None]]:
        """Yield the newest row of every series, optionally of one measurement, firm or site."""
        wanted = _given(measurement=measurement, enterprise=enterprise, site=site)
        for page in self._pages("/newest", wanted):
            for found in page["series"]:
                yield _series(found), _row(found)

    def rows(self, series: Series, start: str, end: str) -> Iterator[Row]:
        """Yield a series' rows with start <= time < end."""
        following: str | None = start
        while following is not None:
            query = {"start": following, "end": end, "limit": "10000"}
            page = self._get(f"/series/{series.id}/rows", query)
            names = list(page["fields"])
            columns = zip(*page["fields"].values(), strict=True) if names else iter(())
            for moment, cells in zip(page["time"], columns, strict=True):
                yield Row(moment, dict(zip(names, cells, strict=True)))
            following = page["next"]

    def newest(self, series: Series) -> Row | None:
        """Return a series' newest row; None where there is none."""
        return _row(self._get(f"/series/{series.id}/newest", {}))

    def provenance(self, series: Series, start: str, end: str) -> list[dict[str, Any]]:
        """Return the batches that rows come from."""
        query = {"start": start, "end": end}
        sources: list[dict[str, Any]] = self._get(f"/series/{series.id}/provenance", query)[
            "sources"
        ]
        return sources

    def steps(
        self,
        series: Series,
        field: str,
        start: str,
        end: str,
        *,
        step: str = "15m",
        aggregate: str = "mean",
        fill: str = "none",
    ) -> list[tuple[str, float | None]]:
        """Return one field over even steps: (start of the step, value).

        `fill`: `none` leaves steps without data out; `null`, `previous` and `linear` fill them.
        """
        query = {"field": field, "start": start, "end": end}
        query |= {"step": step, "aggregate": aggregate, "fill": fill}
        found = self._get(f"/series/{series.id}/steps", query)
        values = found["fields"].get(field, [None] * len(found["time"]))
        return list(zip(found["time"], values, strict=True))

    def oee(self, start: str, end: str, by: str = "equipment") -> Iterator[dict[str, Any]]:
        """Yield OEE with its factors for each `equipment`, `site` or `enterprise`."""
        for page in self._pages("/oee", {"start": start, "end": end, "by": by}):
            yield from page["items"]

    def carbon(self, start: str, end: str, each: str = "whole") -> Iterator[dict[str, Any]]:
        """Yield each site's carbon by scope, method and factor, whole or by `day` or `month`."""
        for page in self._pages("/carbon/summary", {"start": start, "end": end, "each": each}):
            yield from page["sites"]

    def ranking(self, kind: str, period: str) -> dict[str, Any]:
        """Return firms by `oee` or `co2e` of a month, `carbon_per_value` or `carbon_per_area` of a year."""
        firms: list[Any] = []
        page: dict[str, Any] = {}
        for page in self._pages("/rankings", {"kind": kind, "period": period}):
            firms += page["firms"]
        return {**page, "firms": firms}

    def facts(self) -> Iterator[dict[str, Any]]:
        """Yield what people entered, with source and date."""
        for page in self._pages("/facts", {}):
            yield from page["facts"]

    def put_facts(self, facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Enter facts, all or none; needs a token made with --write-facts.

        Raises:
            Refused: with kind `bad-fact`; nothing was entered.
        """
        body = json.dumps({"facts": facts}).encode()
        taken: list[dict[str, Any]] = self._ask("PUT", "/facts", {}, body)["facts"]
        return taken

    def head(self) -> str:
        """Return the position after the newest change there is."""
        return str(self._get("/changes", {"limit": "0"})["head"])

    def changes(self, position: str) -> Iterator[Change]:
        """Yield all changes after a position that there are now.

        Raises:
            Refused: with kind `position-gone` when the copy must be made anew.
        """
        while True:
            page = self._get("/changes", {"cursor": position})
            mark = position.partition(".")[0]
            for one in page["changes"]:
                yield _change(mark, one)
            position = page["next"]
            if position == page["head"]:
                return

    def follow(self, position: str, every_s: float = 5.0) -> Iterator[Change]:
        """Yield changes after a position, and go on as they come, through restarts of the brain too.

        Raises:
            Refused: see `changes`.
            Unreachable: where it could not be reached from the first; later it waits.
        """
        reached = False
        while True:
            try:
                for change in self.changes(position):
                    reached = True
                    position = change.position
                    yield change
                reached = True
            except Unreachable:
                if not reached:
                    raise
            time.sleep(every_s)

    def _pages(self, path: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        following: str | None = ""
        while following is not None:
            page = self._get(path, query | ({"cursor": following} if following else {}))
            yield page
            following = page["next"]

    def _get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        return self._ask("GET", path, query)

    def _ask(
        self, method: str, path: str, query: dict[str, str], body: bytes | None = None
    ) -> dict[str, Any]:
        """Ask, and ask again where the brain says that it cannot answer just now."""
        url = f"{self._url}{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(  # noqa: S310 - the caller's own brain
            url, body, headers=self._headers, method=method
        )
        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            asked = ""
            try:
                with urllib.request.urlopen(  # noqa: S310 - same
                    request, timeout=self._timeout_s, context=self._tls
                ) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _NOT_NOW or last:
                        raise _refused(error) from None
                    asked = error.headers.get("Retry-After", "")
            except (OSError, http.client.HTTPException) as error:
                # Asking again is safe with every method: entering the same facts twice changes nothing.
                if last or _is_distrust(error):
                    raise Unreachable(f"{self._url} — {error}") from error
            wait_s = float(asked) if asked.isdecimal() else _WAIT_S * 2**attempt
            time.sleep(min(wait_s, _LONGEST_WAIT_S))
        raise AssertionError("unreachable")


def _is_distrust(error: Exception) -> bool:
    """Tell whether the brain's certificate is not believed, which no waiting mends."""
    return isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError)


def _refused(error: urllib.error.HTTPError) -> Refused:
    try:
        problem = json.load(error)
        kind = str(problem["type"]).rpartition(":")[2]
        return Refused(error.code, kind, problem["title"], problem["remedy"])
    except (ValueError, KeyError):
        return Refused(error.code, "", f"HTTP {error.code}", "")


def _series(found: Mapping[str, Any]) -> Series:
    return Series(found["id"], found["bucket"], found["measurement"], found["tags"])


def _row(found: Mapping[str, Any]) -> Row | None:
    return None if found["time"] is None else Row(found["time"], found["fields"])


def _given(**wanted: str) -> dict[str, str]:
    return {name: word for name, word in wanted.items() if word}


def _change(mark: str, found: Mapping[str, Any]) -> Change:
    series = _series(found["series"]) if "series" in found else None
    return Change(
        position=f"{mark}.{found['number']}",
        kind=found["kind"],
        series=series,
        first=found.get("first", ""),
        last=found.get("last", ""),
        measurement=series.measurement if series else found["measurement"],
    )
