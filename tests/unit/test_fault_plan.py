"""Plans of faults: the same seed gives the same faults, and a wrong word is told."""

import random

import pytest

from protocols.errors import MillgateError
from simulators.faults.plan import OK, Script, Step, read_plan

KNOWN = ["late-reply", "garbage", "cut-reply"]


def picks(texts: list[str], times: int, seed: int = 1, share: float = 0.5) -> list[str]:
    plan = read_plan(texts, KNOWN, share, random.Random(seed))
    return [plan.next() for _ in range(times)]


def test_a_script_is_played_in_order_and_ends_well() -> None:
    assert picks(["ok*2,late-reply*3, garbage"], 7) == [
        *[OK] * 2,
        *["late-reply"] * 3,
        *["garbage"] * 2,
    ]
    assert picks(["garbage*1"], 3) == ["garbage", OK, OK]


def test_a_script_knows_when_it_is_over() -> None:
    script = Script([Step("garbage", 2)])
    seen = []
    for _ in range(3):
        seen.append(script.over)
        script.next()
    assert seen == [False, False, True]
    assert script.over


def test_sprinkled_faults_hit_their_share_the_same_way_for_the_same_seed() -> None:
    names = ["garbage", "cut-reply"]
    first = picks(names, 1000, share=0.2)
    assert first == picks(names, 1000, share=0.2)
    assert first != picks(names, 1000, seed=2, share=0.2)
    hits = [name for name in first if name != OK]
    assert 150 < len(hits) < 250
    assert set(hits) == set(names)


def test_no_faults_and_no_share_are_a_sound_device() -> None:
    assert set(picks([], 20, share=1.0)) == {OK}
    assert set(picks(["garbage"], 20, share=0.0)) == {OK}
    assert set(picks(["garbage"], 20, share=1.0)) == {"garbage"}


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["garbag"], "did you mean 'garbage'"),
        (["xyz"], "there are: "),
        (["ok*3,cut-repl"], "did you mean 'cut-reply'"),
        (["garbage*0"], "name*count"),
        (["garbage*-1"], "name*count"),
        (["garbage,,"], "name*count"),
        (["garbage*2", "cut-reply"], "put all steps into one"),
    ],
)
def test_a_wrong_word_is_told_with_its_remedy(texts: list[str], says: str) -> None:
    with pytest.raises(MillgateError) as told:
        picks(texts, 1)
    assert says in told.value.remedy
    assert told.value.where.startswith("--fault")
