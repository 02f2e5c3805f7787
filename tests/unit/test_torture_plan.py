"""What a torture does follows from its seed, and leaves nobody and nothing out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.torture.flat import Sample, judge_flat
from simulators.torture.plan import KILL, ORDEALS, PER_ORDEAL, VICTIMS, make_plan
from simulators.torture.run import figures

MEBI = 1 << 20


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
