"""The attacks succeed on the policies that the lint refuses, and fail on those that pass."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from protocols.frame import SECOND, Frame, Values
from protocols.points import Point, PointTable
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText
from security.policy.tools.activity import information
from security.policy.tools.attack import Result, as_text, attack
from security.policy.tools.findings import Severity
from security.policy.tools.lint import Subject, lint, ranges_of
from security.policy.tools.past import Past
from tests.unit.lint_material import KINDS, point, release, text

T0_S = 1_767_600_000
Series = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def table_of(device: str, points: Mapping[str, str]) -> PointTable:
    """A device whose gauges are floats and whose counters are whole."""
    made = tuple(
        Point(
            id=name,
            address=f"holding:{name}",
            type="float32" if kind in {"gauge", "other"} else "uint32",
            unit=KINDS[kind][1],
            measurand=KINDS[kind][0],
            state_model="operating" if kind == "state" else None,
        )
        for name, kind in points.items()
    )
    whole = np.array([kind not in {"gauge", "other"} for kind in points.values()])
    return PointTable(
        device, "test", made, whole, tuple(Decimal(0) for _ in made), hold_ns=300 * SECOND
    )


def past_of(points: Mapping[str, tuple[str, Series]], seconds: int = 7200, every: int = 5) -> Past:
    """A past of devices of one point each, sampled every so many seconds."""
    time = np.arange(0, seconds, every)
    tables, frames = {}, []
    for device, (kind, series) in points.items():
        table = table_of(device, {"x": kind})
        tables[device] = table
        values = series(time.astype(np.float64))
        carried: Values = values.astype(np.int64 if table.integer[0] else np.float64)
        for at in range(0, len(time), 5):
            rows = slice(at, at + 5)
            frames.append(
                Frame(
                    device,
                    np.array([0], np.int32),
                    (T0_S + time[rows, None]) * SECOND,
                    carried[rows, None],
                    np.zeros((len(time[rows]), 1), np.uint8),
                )
            )
    frames.sort(key=lambda one: int(one.time[0, 0]))
    return Past(tables, frames)


def wavy(low: float, size: float, period: float) -> Series:
    return lambda t: low + size * (1 + np.sin(2 * np.pi * t / period)) + (t * 7919 % 13) / 13


def errors(written: PolicyText) -> set[str]:
    subject = Subject.of(compile_policy(written), written)
    return {one.rule for one in lint(subject) if one.severity is Severity.ERROR}


def tried(written: PolicyText, past: Past) -> dict[str, Result]:
    return {one.name: one for one in attack(compile_policy(written), past, ranges_of(written))}


LINE, OWN = wavy(200, 50, 1700), wavy(80, 30, 900)


def total(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = LINE(t) + OWN(t)
    return found


HALL = past_of({"main": ("gauge", total), "line": ("gauge", LINE), "own": ("gauge", OWN)})
SUM = {"sum": [(1, "main/x"), (-1, "line/x"), (-1, "own/x")]}


def hall(
    main: Mapping[str, Any], line: Mapping[str, Any], protect: str = "5", **more: Any
) -> PolicyText:
    ranges = more.get("ranges", {})
    return text(
        [
            point("main/x", **main, **ranges.get("main", {})),
            point("line/x", **line, **ranges.get("line", {})),
            point("own/x", **ranges.get("own", {})),
        ],
        [{"point": "own/x", "protect": protect}],
        SUM,
    )


def mean(number: int, slot: str = "15m", **more: Any) -> dict[str, Any]:
    return release(number, "mean", slot, **more)


def test_differencing_finds_the_part_that_is_missing() -> None:
    written = hall(mean(1), mean(2))
    assert "derivable" in errors(written)
    found = tried(written, HALL)
    assert found["differencing"].succeeded
    assert "own/x" in found["differencing"].target


def test_coarse_rounding_falls_to_averaging() -> None:
    """Momentary values every minute, rounded to 100: one is useless, an hour of them is not."""
    coarse = {"round": "100"}
    written = hall(release(1, "last", "1m", **coarse), release(2, "last", "1m", **coarse), "10")
    assert "derivable" in errors(written)
    found = tried(
        written,
        past_of(
            {
                "main": ("gauge", lambda t: total(t) + t * 3137 % 211),
                "line": ("gauge", lambda t: LINE(t) + t * 3137 % 211),
                "own": ("gauge", OWN),
            }
        ),
    )
    assert not found["differencing"].succeeded
    assert found["averaging"].succeeded


def test_slots_that_cut_each_other_are_cut_to_pieces() -> None:
    both = {**mean(1, "10m"), "also": [mean(2, "15m")]}
    written = text([point("main/x", **both)])
    assert "overlapping-slots" in errors(written)
    result = tried(written, HALL)["overlap"]
    assert result.succeeded
    assert "5 min" in result.what
    nested = text([point("main/x", **{**mean(1, "5m"), "also": [mean(2, "15m")]})])
    assert "overlapping-slots" not in errors(nested)
    assert "overlap" not in tried(nested, HALL)


def test_three_samples_with_three_statistics_are_all_found() -> None:
    few: dict[str, Any] = {"min_samples": 1, "round": "0.001"}
    ways = {
        **mean(1, "30s", **few),
        "also": [release(2, "min", "30s", **few), release(3, "max", "30s", **few)],
    }
    written = text([point("main/x", **ways)])
    assert "too-few-samples" in errors(written)
    slow = past_of({"main": ("gauge", total)}, every=10)
    assert tried(written, slow)["samples"].succeeded
    many: dict[str, Any] = {"min_samples": 30, "round": "0.001"}
    ways = {
        **mean(1, "15m", **many),
        "also": [release(2, "min", "15m", **many), release(3, "max", "15m", **many)],
    }
    written = text([point("main/x", **ways)])
    assert "too-few-samples" not in errors(written)
    assert not tried(written, HALL)["samples"].succeeded


def test_a_narrow_range_lets_the_rest_be_enclosed() -> None:
    ranges = {
        "main": {"range": [200, 500]},
        "line": {"range": [195, 205]},
        "own": {"range": [0, 300]},
    }
    steady = past_of(
        {
            "main": ("gauge", lambda t: 200 + OWN(t)),
            "line": ("gauge", lambda t: 200 + 0 * t),
            "own": ("gauge", OWN),
        }
    )
    written = hall(mean(1), {}, "10", ranges=ranges)
    assert "enclosed" in errors(written)
    assert tried(written, steady)["enclosing"].succeeded
    ranges["line"] = {"range": [0, 400]}
    wide = hall(mean(1), {}, "10", ranges=ranges)
    assert not errors(wide)
    assert not tried(wide, steady)["enclosing"].succeeded


@pytest.mark.parametrize(
    "written",
    [
        hall(mean(1, "1h"), {}),
        hall({}, mean(2, "15m")),
        hall(release(1, "max", "15m"), mean(2, "15m")),
        hall(release(1, "last", "15m"), mean(2, "15m")),
        text([point("main/x", **{**mean(1, "5m"), "also": [mean(2, "1h")]})]),
    ],
)
def test_no_attack_succeeds_on_what_passes_the_lint(written: PolicyText) -> None:
    assert not errors(written)
    results = attack(compile_policy(written), HALL, ranges_of(written))
    assert [one for one in results if one.succeeded] == []


def test_an_attack_on_counters_rebuilds_what_they_rose_by() -> None:
    meters = past_of(
        {
            "main": ("counter", lambda t: np.floor(t * 3) + np.floor(t * t / 4000)),
            "line": ("counter", lambda t: np.floor(t * 3)),
            "own": ("counter", lambda t: np.floor(t * t / 4000)),
        }
    )
    points = [
        point("main/x", "counter", **release(1, "delta", "15m")),
        point("line/x", "counter", **release(2, "delta", "15m")),
        point("own/x", "counter"),
    ]
    written = text(points, [{"point": "own/x", "protect": "5"}], SUM)
    assert "derivable" in errors(written)
    assert tried(written, meters)["differencing"].succeeded


def test_activity_is_estimated_from_the_series() -> None:
    works = np.arange(400) % 20 < 12
    loud = np.where(works, 80.0, 5.0)
    assert (information(loud, works) or 0) > 0.9
    random = np.random.default_rng(3).permutation(loud)
    assert (information(random, works) or 0) < 0.2
    assert information(loud, np.ones(400, np.bool_)) is None


def test_results_say_how_closely_and_never_a_value() -> None:
    said = as_text(attack(compile_policy(hall(mean(1), mean(2))), HALL))
    assert "own/x" in said
    assert "succeeded" in said
    truths: Sequence[float] = OWN(np.arange(0, 7200, 10.0)).tolist()
    assert not any(f"{value:.3f}" in said for value in truths)
