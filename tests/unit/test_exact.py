"""The exact engine against naive algebra: its verdicts, and the proofs that come with them."""

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.policy.tools.exact import Equation, Span, components, judge_all
from security.policy.tools.intervals import Known, Range, TooLarge, enclose

Matrix = list[list[int]]

systems = st.integers(1, 7).flatmap(
    lambda width: st.tuples(
        st.lists(
            st.lists(st.integers(-3, 3), min_size=width, max_size=width), min_size=0, max_size=8
        ),
        st.lists(st.integers(-3, 3), min_size=width, max_size=width),
    )
)


def naive_rank(matrix: Sequence[Sequence[Fraction | int]]) -> int:
    """Gauss with full rows of fractions, as in a school book."""
    rows = [[Fraction(cell) for cell in row] for row in matrix]
    rank = 0
    for column in range(len(rows[0]) if rows else 0):
        found = next((at for at in range(rank, len(rows)) if rows[at][column]), None)
        if found is None:
            continue
        rows[rank], rows[found] = rows[found], rows[rank]
        for at in range(rank + 1, len(rows)):
            share = rows[at][column] / rows[rank][column]
            rows[at] = [a - share * b for a, b in zip(rows[at], rows[rank], strict=True)]
        rank += 1
    return rank


def equations(matrix: Matrix) -> list[Equation[int]]:
    return [
        Equation(f"row {at}", {c: Fraction(cell) for c, cell in enumerate(row) if cell})
        for at, row in enumerate(matrix)
    ]


def terms(row: Sequence[int]) -> dict[int, Fraction]:
    return {c: Fraction(cell) for c, cell in enumerate(row) if cell}


@settings(max_examples=400, deadline=None)
@given(systems)
def test_a_verdict_is_the_rank_test_and_carries_its_proof(system: tuple[Matrix, list[int]]) -> None:
    matrix, target = system
    verdict = judge_all(equations(matrix), {"secret": terms(target)})["secret"]
    assert verdict.follows == (naive_rank([*matrix, target]) == naive_rank(matrix))
    if verdict.follows:
        for column, cell in enumerate(target):
            total = sum(
                (
                    verdict.combination.get(f"row {at}", Fraction(0)) * row[column]
                    for at, row in enumerate(matrix)
                ),
                Fraction(0),
            )
            assert total == cell
    else:
        for row in matrix:
            assert sum(row[c] * change for c, change in verdict.witness.items()) == 0
        assert sum(target[c] * change for c, change in verdict.witness.items()) != 0


@settings(max_examples=100, deadline=None)
@given(systems)
def test_the_rank_is_the_naive_one(system: tuple[Matrix, list[int]]) -> None:
    matrix, target = system
    assert Span(equations([*matrix, target])).rank == naive_rank([*matrix, target])


def test_groups_that_share_no_unknown_are_kept_apart() -> None:
    groups = components(equations([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]))
    assert sorted(sorted(one.label for one in group) for group in groups) == [
        ["row 0", "row 2"],
        ["row 1"],
    ]


def test_a_hall_of_ten_thousand_meters_is_judged_exactly() -> None:
    """100 feeders of 100 meters; in each one meter is withheld, in feeder 7 two."""
    known: list[Equation[str]] = []
    targets = {}
    for feeder in range(100):
        total = f"total-{feeder}"
        lines = [f"line-{feeder}-{at}" for at in range(100)]
        balance = {total: Fraction(1), **dict.fromkeys(lines, Fraction(-1))}
        known.append(Equation(f"balance {feeder}", balance))
        released = [total, *lines[1 if feeder != 7 else 2 :]]
        known += [Equation(name, {name: Fraction(1)}) for name in released]
        targets[lines[0]] = {lines[0]: Fraction(1)}
    verdicts = judge_all(known, targets)
    assert [name for name, one in verdicts.items() if not one.follows] == ["line-7-0"]
    assert verdicts["line-3-0"].combination["total-3"] == 1
    assert verdicts["line-3-0"].combination["line-3-99"] == -1


def corners(
    target: list[int], known: list[tuple[list[int], int]], highs: list[int]
) -> tuple[Fraction, Fraction]:
    """Bounds over [0, high] boxes by trying every integer corner of a unimodular system."""
    best: list[Fraction] = []
    grid = range(max(highs) + 1)

    def walk(chosen: list[int]) -> None:
        if len(chosen) == len(highs):
            fits = all(
                abs(sum(c * (x - t) for c, x, t in zip(row, chosen, truth, strict=True))) <= slack
                for row, slack in known
            )
            if fits:
                best.append(Fraction(sum(c * x for c, x in zip(target, chosen, strict=True))))
            return
        for value in grid:
            if value <= highs[len(chosen)]:
                walk([*chosen, value])

    truth = [high // 2 for high in highs]
    walk([])
    return min(best), max(best)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=3, max_size=3),
    st.lists(
        st.tuples(st.sampled_from([[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 0, 0]]), st.integers(0, 2)),
        max_size=3,
    ),
    st.sampled_from([[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
)
def test_bounds_are_those_of_trying_everything(
    highs: list[int], known: list[tuple[list[int], int]], target: list[int]
) -> None:
    """Rows of consecutive ones are totally unimodular: the extremes are at whole numbers."""
    truth = {c: Fraction(high // 2) for c, high in enumerate(highs)}
    ranges = {c: Range(Fraction(0), Fraction(high)) for c, high in enumerate(highs)}
    found = enclose(
        terms(target), [Known(terms(row), Fraction(slack)) for row, slack in known], ranges, truth
    )
    assert (found.low, found.high) == corners(target, known, highs)


def test_what_nothing_bounds_is_unbounded() -> None:
    known = [Known({"a": Fraction(1), "b": Fraction(1)}, Fraction(0))]
    truth = {"a": Fraction(3), "b": Fraction(4)}
    assert enclose({"a": Fraction(1)}, known, {}, truth) == Range(None, None)
    low = {"b": Range(Fraction(0), None)}
    assert enclose({"a": Fraction(1)}, known, low, truth) == Range(None, Fraction(7))


def test_a_group_that_is_too_large_is_refused_not_guessed() -> None:
    names = [str(at) for at in range(60)]
    known = [Known(dict.fromkeys(names, Fraction(1)), Fraction(0))]
    with pytest.raises(TooLarge):
        enclose({"0": Fraction(1)}, known, {}, dict.fromkeys(names, Fraction(0)))
