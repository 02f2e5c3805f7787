"""The lint: its verdicts are those of plain algebra, and every rule finds what it is for."""

from collections.abc import Mapping, Sequence
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.vocabulary.elements import COMPUTABLE, STATE, constants_of, inputs_of
from security.policy.compiled import CompiledPolicy
from security.policy.compiler import compile_policy
from security.policy.tools.findings import Finding, Severity
from security.policy.tools.inference import judge
from security.policy.tools.lint import Subject, lint, scope
from security.policy.tools.model import AMOUNT, BUSY, CONSTANT, EXPONENTS, MOMENT, RUN, build
from security.policy.tools.report import as_data, in_words
from tests.unit.lint_material import PINS, point, policy, release, text
from tests.unit.test_exact import naive_rank

NAMES = [f"hall/p{at}" for at in range(5)]
MINUTES = [1, 2, 3, 6]
ORIGIN = {"origin": "modbus tcp hall:502 unit 1 order ABCD"}

# The oracle: everything written out cell by cell, and a school-book rank.


def follows(
    released: Sequence[tuple[int, int]],
    relations: Sequence[Mapping[int, int]],
    secret: int,
    window: int,
) -> bool:
    """Tell whether the secret follows in every slot of a window, by rank over all cells.

    Args:
        released: (point, slot length in minutes) of each statistic.
        relations: factor of each point.
    """
    whole = lcm(*MINUTES)
    cells = len(NAMES) * whole

    def row(terms: Mapping[int, int], start: int, length: int) -> list[int]:
        found = [0] * cells
        for at, factor in terms.items():
            for cell in range(start, start + length):
                found[at * whole + cell] += factor
        return found

    rows = [
        row({at: 1}, start, length) for at, length in released for start in range(0, whole, length)
    ]
    rows += [row(zero, cell, 1) for zero in relations for cell in range(whole)]
    rank = naive_rank(rows)
    return all(
        naive_rank([*rows, row({secret: 1}, start, window)]) == rank
        for start in range(0, whole, window)
    )


def written(
    released: Sequence[tuple[int, int]], relations: Sequence[Mapping[int, int]], secret: int
) -> list[CompiledPolicy]:
    """The same as policies: statistics are spread over two consumers and two versions."""
    versions = []
    for version in (2, 1):
        points = []
        for at, name in enumerate(NAMES):
            mine = [
                release(10 * at + way + 1, "mean", f"{minutes}m", f"c{way % 2}")
                for way, (owner, minutes) in enumerate(released)
                if owner == at and way % 2 == version - 1
            ]
            first: dict[str, Any] = mine[0] if mine else {}
            more: dict[str, Any] = {"also": mine[1:]} if mine else {}
            points.append(point(name, **first, **more))
        sums = {
            f"r{at}": [(factor, NAMES[place]) for place, factor in zero.items()]
            for at, zero in enumerate(relations)
        }
        secrets = [NAMES[secret]] if version == 2 else []
        versions.append(policy(points, secrets, sums, consumers=2, version=version))
    return versions


zeros = st.dictionaries(st.integers(0, 4), st.sampled_from([-2, -1, 1, 2]), min_size=2, max_size=4)
ways = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(MINUTES)), max_size=6, unique=True)


@settings(max_examples=60, deadline=None)
@given(ways, st.lists(zeros, max_size=3))
def test_verdicts_are_those_of_exact_algebra_over_every_cell(
    released: list[tuple[int, int]], relations: list[dict[int, int]]
) -> None:
    secret = 4
    judged = judge(build(written(released, relations, secret)))
    found = judged.disclosed.get((AMOUNT, NAMES[secret]))
    assert (found is not None) == follows(released, relations, secret, lcm(*MINUTES))
    if found is not None:
        assert follows(released, relations, secret, max(found.window_s // 60, 1))


COUNTERS = {"pq": "total", "gq": "good", "energy": "counter"}
FIGURES = sorted(name for name, one in COMPUTABLE.items() if inputs_of(one) <= {STATE, *COUNTERS})
TIMES = ["apt", "aust", "aupt", "adet", "pbt", "apt + adet"]


def derived(formula: str, number: int) -> dict[str, Any]:
    """A key figure of machine m, whose points are named like the elements."""
    outlet = release(number, "last", "15m")
    outlet["release"].pop("aggregate")
    return {
        **outlet,
        "name": f"k{number}",
        "formula": formula,
        "inputs": {name: f"m/{name}" for name in inputs_of(COMPUTABLE[formula])},
        "constants": dict.fromkeys(constants_of(COMPUTABLE[formula]), "20"),
    }


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(FIGURES), max_size=4),
    st.sets(st.sampled_from([STATE, *COUNTERS])),
)
def test_key_figures_are_judged_by_the_rank_of_their_logarithms(
    figures: list[str], open_points: set[str]
) -> None:
    points = [
        point(f"m/{name}", kind, **(release(at, how, "15m") if name in open_points else {}))
        for name, kind, at, how in (
            (STATE, "state", 100, "state"),
            *((name, kind, 200 + n, "delta") for n, (name, kind) in enumerate(COUNTERS.items())),
        )
    ]
    compiled = policy(points, derive=[derived(name, at + 1) for at, name in enumerate(figures)])
    names = [*TIMES, *COUNTERS, *(f"k{at + 1}" for at in range(len(figures)))]
    rows = [
        [
            EXPONENTS[formula].get(name, 0)
            + EXPONENTS[formula].get("pru", 0) * (name == f"k{at + 1}")
            for name in names
        ]
        for at, formula in enumerate(figures)
    ]
    for name in sorted(open_points):
        told = TIMES if name == STATE else [name]
        rows += [[int(one == other) for other in names] for one in told]
    judged = judge(build([compiled]))
    for at, formula in enumerate(figures):
        if constants_of(COMPUTABLE[formula]):
            target = [int(name == f"k{at + 1}") for name in names]
            expected = naive_rank([*rows, target]) == naive_rank(rows)
            assert ((CONSTANT, f"k{at + 1}.pru") in judged.disclosed) == expected


@pytest.mark.parametrize("formula", sorted(COMPUTABLE))
def test_every_formula_of_the_vocabulary_is_the_product_of_powers_that_the_lint_takes(
    formula: str,
) -> None:
    random = np.random.default_rng(7)
    inputs = COMPUTABLE[formula].inputs
    terms = {name: random.uniform(1, 100, 50) for name in {*inputs, *TIMES}}
    terms["apt + adet"] = terms["apt"] + terms["adet"]
    if "aoet" in inputs:
        terms["aoet"] = terms["pbt"]
    product = np.prod(
        [terms[name] ** float(power) for name, power in EXPONENTS[formula].items()], axis=0
    )
    assert np.allclose(COMPUTABLE[formula].compute(*(terms[name] for name in inputs)), product)


# Each rule.

TOTAL, LINE, OWN = "main/power", "line/power", "press/power"
SUM = {"sum": [(1, TOTAL), (-1, LINE), (-1, OWN)]}


def found(
    *arguments: Any, retained: Sequence[CompiledPolicy] = (), **more: Any
) -> dict[str, Finding]:
    written_text = text(*arguments, **more)
    subject = Subject.of(compile_policy(written_text), written_text, retained)
    return {one.rule: one for one in lint(subject)}


def three(**changes: Any) -> list[dict[str, Any]]:
    """A total and a line that leave, and a press that does not."""
    return [
        point(TOTAL, **{**release(1, "mean", "15m"), **changes}),
        point(LINE, **release(2, "mean", "15m")),
        point(OWN),
    ]


def test_a_total_and_all_parts_but_one_disclose_that_one() -> None:
    finding = found(three(), [OWN], SUM)["derivable"]
    assert finding.severity is Severity.ERROR
    assert finding.place == ("secret", 0)
    for word in ("#1 main/power", "#2 line/power", "15 min", "−"):
        assert word in finding.what


def test_with_two_parts_withheld_neither_follows() -> None:
    points = [*three(), point("oven/power")]
    sums = {"sum": [*SUM["sum"], (-1, "oven/power")]}
    assert "derivable" not in found(points, [OWN], sums)


def test_what_is_released_as_an_extreme_only_does_not_add_up() -> None:
    points = three(release=release(1, "max", "15m")["release"])
    assert "derivable" not in found(points, [OWN], SUM)


def test_momentary_values_add_up_among_themselves_only() -> None:
    points = [
        point(TOTAL, **release(1, "last")),
        point(LINE, **release(2, "mean")),
        point(OWN),
    ]
    assert "derivable" not in found(points, [OWN], SUM)
    points[1] = point(LINE, **release(2, "last"))
    assert "momentary" in found(points, [OWN], SUM)["derivable"].what


def test_two_consumers_together_disclose_what_neither_could() -> None:
    points = [
        point(TOTAL, **release(1, "mean", "15m", "c0")),
        point(LINE, **release(2, "mean", "15m", "c1")),
        point(OWN),
    ]
    assert "derivable" in found(points, [OWN], SUM, consumers=2)


def test_two_versions_together_disclose_what_neither_does_alone() -> None:
    old = policy([point(TOTAL, **release(1, "mean", "15m")), point(LINE), point(OWN)])
    new = [point(TOTAL), point(LINE, **release(2, "mean", "15m")), point(OWN)]
    assert "derivable" not in found(new, [OWN], SUM, version=2)
    assert "derivable" in found(new, [OWN], SUM, version=2, retained=[old])


def test_slots_that_differ_disclose_at_their_common_length() -> None:
    points = [
        point(TOTAL, **release(1, "mean", "10m")),
        point(LINE, **release(2, "mean", "15m")),
        point(OWN),
    ]
    assert "30 min" in found(points, [OWN], SUM)["derivable"].what


def test_pseudonyms_and_bands_are_no_way_round_the_lint() -> None:
    banded = release(1, "mean", "15m", bands=[0, 100, 200])
    assert "derivable" in found(three(**banded), [OWN], SUM)


def test_a_secret_enclosed_more_narrowly_than_its_protection_is_refused() -> None:
    """A total of about 1000 with a part of at most 10: the rest is known within 1 %."""
    points = [
        point(TOTAL, range=[900, 1100], **release(1, "mean", "15m")),
        point(LINE, range=[0, 10]),
        point(OWN, range=[800, 1200]),
    ]
    assert "enclosed" in found(points, [{"point": OWN, "protect": "5"}], SUM)
    assert "enclosed" not in found(points, [{"point": OWN, "protect": "0.1"}], SUM)
    wide = [points[0], point(LINE, range=[0, 1000]), points[2]]
    assert "enclosed" not in found(wide, [{"point": OWN, "protect": "5"}], SUM)


def test_slots_of_one_point_that_cut_each_other_are_refused() -> None:
    twice = {**release(1, "mean", "10m"), "also": [release(2, "mean", "15m")]}
    assert found([point(TOTAL, **twice)])["overlapping-slots"].severity is Severity.ERROR
    nested = {**release(1, "mean", "5m"), "also": [release(2, "mean", "15m")]}
    assert "overlapping-slots" not in found([point(TOTAL, **nested)])


def test_slots_that_cut_those_of_a_kept_version_are_refused() -> None:
    old = policy([point(TOTAL, **release(1, "mean", "10m"))])
    new = [point(TOTAL, **release(1, "mean", "15m"))]
    assert "overlapping-slots" in found(new, version=2, retained=[old])


@pytest.mark.parametrize(("samples", "refused"), [(1, True), (19, True), (20, False)])
def test_ten_samples_for_each_statistic_are_needed(samples: int, refused: bool) -> None:
    ways = {
        **release(1, "mean", "15m", min_samples=samples),
        "also": [release(2, "max", "15m", min_samples=samples)],
    }
    assert ("too-few-samples" in found([point(TOTAL, **ways)])) is refused


MACHINE = [
    point("m/state", "state", **release(10, "state", "15m")),
    point("m/pq", "total", **release(1, "delta", "15m")),
]


def test_run_time_beside_parts_is_warned_of_and_refused_where_the_cycle_is_secret() -> None:
    assert found(MACHINE)["cycle-time"].severity is Severity.WARNING
    secret = point("m/cycle", "other", unit="s")
    assert found([*MACHINE, secret], ["m/cycle"])["cycle-time"].severity is Severity.ERROR
    assert "cycle-time" not in found(MACHINE[:1])


def test_a_key_figure_beside_its_open_inputs_discloses_its_constant() -> None:
    finding = found(MACHINE, derive=[derived("effectiveness", 50)])["derivable"]
    assert "k50.pru" in finding.what
    hidden = [point("m/state", "state"), point("m/pq", "total")]
    assert "derivable" not in found(hidden, derive=[derived("effectiveness", 50)])


def test_what_follows_by_sums_discloses_what_follows_by_products() -> None:
    """The total of the machine is not released, but that of the hall and of all others is."""
    points = [
        MACHINE[0],
        point("m/pq", "total"),
        point("hall/total", "total", **release(1, "delta", "15m")),
        point("n/total", "total", **release(2, "delta", "15m")),
    ]
    sums = {"parts": [(1, "hall/total"), (-1, "n/total"), (-1, "m/pq")]}
    assert "derivable" in found(points, relations=sums, derive=[derived("effectiveness", 50)])
    assert "derivable" not in found(points, derive=[derived("effectiveness", 50)])


def test_a_name_that_sounds_like_a_secret_is_warned_of() -> None:
    assert "sounds-secret" in found([point("m/recipe-temp", **release(1, "last"))])


@pytest.mark.parametrize(
    ("language", "more"),
    [("en", "and 40 more alike: h/p00, h/p01,"), ("zh", "另有 40 处相同：h/p00, h/p01,")],
)
def test_findings_that_differ_in_their_point_alone_are_one_line_with_the_first_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, more: str
) -> None:
    monkeypatch.setenv("MILLGATE_LANG", language)
    points = [point(f"h/p{at:02}", **release(1 + at, "mean")) for at in range(40)]
    points.append(point("h/order", **release(90, "last", "1h")))
    findings = lint(Subject.of(policy(points)))
    alike = [one for one in findings if one.rule == "origin-unsigned"]
    assert len(alike) == 41
    text = in_words(alike, tmp_path / "policy.signed")
    assert text.count("[origin-unsigned]") == 1
    assert "× 41" in text
    assert more in text
    assert text.count("h/p") < 12
    whole = in_words(findings, tmp_path / "policy.signed")
    # What says something else stays by itself, and machines get every one.
    assert whole.count("[sounds-secret]") == 1
    assert len(as_data(findings, tmp_path / "policy.signed")) == len(findings)


def test_a_quiet_policy_has_no_error() -> None:
    points = [point(TOTAL, **release(1, "mean", "1h"), **ORIGIN), point(LINE), point(OWN)]
    findings = found(points, [OWN], SUM)
    assert {one.severity for one in findings.values()} <= {Severity.NOTE}


def test_the_verdict_says_what_it_covers_and_what_not() -> None:
    subject = Subject.of(policy(three(), [OWN], SUM))
    said = scope(subject)
    assert "1 declared linear relation" in said
    assert "Not covered" in said


def test_a_hidden_secret_comes_with_a_change_that_nobody_would_notice() -> None:
    points = [*three(), point("oven/power")]
    sums = {"sum": [*SUM["sum"], (-1, "oven/power")]}
    witness = judge(build([policy(points, [OWN], sums)])).hidden[AMOUNT, OWN]
    assert witness == {(AMOUNT, OWN): 1, (AMOUNT, "oven/power"): -1}


def test_thousands_of_points_are_judged_at_once() -> None:
    points, sums, secrets = [], {}, []
    for hall in range(100):
        names = [f"h{hall}/p{at}" for at in range(40)]
        total = f"h{hall}/total"
        points.append(point(total, **release(50 * hall + 1, "mean", "15m")))
        points += [
            point(name, **release(50 * hall + 2 + at, "mean", "15m"))
            for at, name in enumerate(names[2:])
        ]
        points += [point(names[0]), point(names[1])]
        sums[f"h{hall}"] = [(1, total), *((-1, name) for name in names)]
        secrets.append(names[0])
    judged = judge(build([policy(points, secrets, sums)]))
    assert not [name for name in judged.disclosed if name[0] == AMOUNT]
    assert len([name for name in judged.hidden if name[0] == AMOUNT]) == 100


def test_quantities_are_named_once() -> None:
    assert len({AMOUNT, MOMENT, RUN, BUSY, CONSTANT}) == 5
    assert len(set(PINS)) == len(PINS)
