"""What a torture does follows from its seed, and leaves nobody and nothing out."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.torture.flat import Sample, judge_flat
from simulators.torture.given_up import GivenUp
from simulators.torture.plan import KILL, ORDEALS, PER_ORDEAL, VICTIMS, make_plan
from simulators.torture.report import make_report
from simulators.torture.run import Result, figures

MEBI = 1 << 20


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 1 << 31))
def test_a_plan_kills_as_often_as_asked_and_the_same_for_the_same_seed(
    kills: int, seed: int
) -> None:
    plan = make_plan(kills, seed)
    assert plan == make_plan(kills, seed)
    assert sum(len(step.victims) for step in plan) == kills
    assert [step.number for step in plan] == list(range(1, len(plan) + 1))
    for step in plan:
        assert len(set(step.victims)) == len(step.victims) <= 2
        assert sorted(step.back) == sorted(step.victims)
        assert (step.what == KILL) == bool(step.victims)


@settings(deadline=None)
@given(st.integers(len(VICTIMS), 300), st.integers(0, 1 << 31))
def test_everybody_is_killed_alone_and_every_ordeal_comes(kills: int, seed: int) -> None:
    plan = make_plan(kills, seed)
    assert {step.victims for step in plan} >= {(one,) for one in VICTIMS}
    rounds = -(-kills // PER_ORDEAL)
    done = [step.what for step in plan]
    assert {done.count(what) for what in ORDEALS} == {rounds}


def test_another_seed_is_another_torture() -> None:
    assert make_plan(30, 1) != make_plan(30, 2)


def samples(resident: list[float], descriptors: list[int] | None = None) -> list[Sample]:
    files = descriptors or [20] * len(resident)
    return [
        Sample(5.0 * at, int(one * MEBI), many)
        for at, (one, many) in enumerate(zip(resident, files, strict=True))
    ]


def test_memory_that_goes_up_and_down_is_flat() -> None:
    found = judge_flat(samples([60.0 + at % 7 for at in range(180)]), 300.0)
    assert found.flat
    assert abs(found.hourly) < MEBI


def test_what_a_process_takes_to_warm_up_does_not_count() -> None:
    assert judge_flat(samples([10.0 + min(at, 60) for at in range(180)]), 300.0).flat


@pytest.mark.parametrize("hourly", [60.0, 200.0])
def test_a_leak_is_told_with_its_size(hourly: float) -> None:
    found = judge_flat(samples([60.0 + hourly * at * 5 / 3600 for at in range(720)]), 1200.0)
    assert not found.flat
    assert found.hourly / MEBI == pytest.approx(hourly, rel=0.02)


def test_descriptors_that_pile_up_are_not_flat() -> None:
    found = judge_flat(samples([60.0] * 180, [20 + at // 10 for at in range(180)]), 300.0)
    assert not found.flat
    assert found.second_files > found.first_files + 4


def test_too_few_samples_say_nothing() -> None:
    assert not judge_flat(samples([60.0] * 5), 0.0).flat


REPORT = {
    "stored": 5,
    "waiting": 0,
    "refused": 0,
    "lost": 0,
    "declared": 0,
    "said_given_up": 0,
    "losses": [{"epoch": 1, "stream": 7, "first": 4, "last": 5, "start_s": 8, "end_s": 12}],
    "missing": [{"series": "a b", "counter": True, "begin_ns": 8, "end_ns": 12, "window_ns": 2}],
    "doubled": 0,
    "wrong": 0,
    "judged": 5,
    "first_wrong": "",
    "first_lost": "",
    "balanced": True,
}


@pytest.mark.parametrize("name", ["lost", "doubled", "wrong", "refused"])
def test_one_of_anything_spoils_an_account(name: str) -> None:
    assert figures(REPORT).clean
    assert not figures({**REPORT, name: 1}).clean


def test_an_account_of_nothing_or_out_of_balance_is_not_clean() -> None:
    assert not figures({**REPORT, "judged": 0}).clean
    assert not figures({**REPORT, "balanced": False}).clean


def test_the_first_wrong_or_lost_slot_is_named() -> None:
    lost = figures({**REPORT, "lost": 1, "first_lost": "meter-1 energy 08:00"})
    assert lost.first == "meter-1 energy 08:00"


def test_a_report_has_the_figures_for_a_note_in_words_and_as_one_line_of_json() -> None:
    plan = make_plan(12, 7)
    results = [
        Result(step, 1.0, whole, 0, replace(figures(REPORT), judged=10 * at, declared=3))
        for at, (step, whole) in enumerate(
            zip(plan, [4.0, 9.0, 5.0, *[5.0] * len(plan)], strict=False)
        )
    ]
    results[3] = replace(results[3], given_up=GivenUp(13, 39, 1, 2))
    report = make_report(results, None, seed=7, planned=len(plan), took_s=120, violation="x — y")
    found = json.loads(report.as_json())
    assert "\n" not in report.as_json()
    assert sum(found["kills"].values()) == 12
    assert set(found["kills"]) == set(VICTIMS)
    assert found["ordeals"] == dict.fromkeys(sorted(ORDEALS), 1)
    assert (found["whole_median_s"], found["whole_most_s"]) == (5.0, 9.0)
    assert (found["judged"], found["declared"]) == (10 * (len(plan) - 1), 3)
    assert (found["given_up"]["values"], found["given_up"]["slots"]) == (13, 39)
    assert (found["steps"], found["planned"], found["settled"]) == (len(plan), len(plan), False)
    words = report.in_words()
    for said in (
        "kills: 12 (",
        "13 values over 39 slots",
        "5.0 s in the median",
        "9.0 s at most",
        "ended by: x — y",
    ):
        assert said in words


def test_a_report_of_nothing_has_no_median() -> None:
    report = make_report([], None, seed=1, planned=3, took_s=0.0)
    assert json.loads(report.as_json())["whole_median_s"] is None
    assert "median" not in report.in_words()
