"""What the policy language refuses, and how its shorthands are expanded."""

import tomllib
from pathlib import Path

import pytest

from protocols.errors import ConfigError
from security.policy.characters import fault_in
from security.policy.compiled import CompiledPolicy
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText, read_policy
from security.policy.sheets import release_sheets
from tests.unit.policy_material import POLICY, changed, compiled, read
from tests.unit.test_widening import RICH


def faults(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


LOOK_ALIKES = [
    "\u0430",  # Cyrillic a
    "\u03bf",  # Greek omicron
    "\u202e",  # right-to-left override
    "\u200b",  # zero-width space
    "\u200d",  # zero-width joiner
    "\ufeff",  # byte order mark
    "\u00a0",  # no-break space
    "\u017f",  # long s
    "\uff41",  # full-width a
    "\uff11",  # full-width 1
    "\u2460",  # circled one
    "a\u0301",  # a with a loose accent
    "\u212a",  # Kelvin sign
    "\u0000",
    "\u007f",
    "\u2028",
    "\u115f",
    "\ufe0f",
    "\U000e0041",
    "\u0561",  # Armenian
]


@pytest.mark.parametrize("bad", LOOK_ALIKES, ids=ascii)
def test_what_looks_like_something_else_is_refused_everywhere(bad: str, tmp_path: Path) -> None:
    assert fault_in(f"ab{bad}c") is not None
    data = tomllib.loads(POLICY)
    data["consumer"][0]["right"] = f"DR{bad}1"
    with pytest.raises(ValueError, match=r"U\+|NFC"):
        PolicyText.model_validate(data)
    path = tmp_path / "policy.toml"
    if bad not in {"\u0000", "\u007f"}:
        path.write_text(POLICY + f"# a comment {bad}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=rf"policy\.toml:{len(POLICY.splitlines()) + 1}"):
            read_policy(path)


@pytest.mark.parametrize(
    "good", ["合同 2026-017（浙江）", "Müller & Söhne", "m³ °C µm Ω", "测试，“引号”", "a-b_c"]
)
def test_what_people_write_is_allowed(good: str, tmp_path: Path) -> None:
    assert fault_in(good) is None
    path = tmp_path / "policy.toml"
    path.write_text(changed("DR-2026-0017", good) + f"# {good}\r\n", encoding="utf-8")
    assert read_policy(path).consumer[0].right == good


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "-0.0"])
@pytest.mark.parametrize("place", ["scale = 0.1", "offset = 0", "round = 0.01"])
def test_numbers_that_are_none_are_refused(number: str, place: str) -> None:
    name = place.split(" ", maxsplit=1)[0]
    assert faults(changed(place, f"{name} = {number}"))


REFUSED = [
    ("round = 5,", "round = 5, bands = [1],", "either round or bands"),
    ("round = 5, ", "", "either round or bands"),
    ("clamp = [0, 100]", "clamp = [0, 102]", "multiples of round"),
    ("clamp = [0, 100]", "clamp = [100, 0]", "clamp"),
    ("clamp = [0, 100]", "clamp = [0, 1e17]", "clamp"),
    ("min_samples = 10", "min_samples = 0", "min_samples"),
    ("bands = [0, 25, 50]", "bands = [25, 0]", "rising"),
    ("bands = [0, 25, 50]", "bands = [0, 0]", "rising"),
    ("bands = [0, 25, 50]", "bands = [1e-10]", "bands"),
    ("bands = [0, 25, 50]", "bands = [1e-9, 1e15]", "bands"),
    ('delay = "2m"', 'delay = "1025m"', "delay"),
    ('delay = "2m"', 'delay = "1500ms"', "delay"),
    ('fill_within = "5m"', 'fill_within = "2000m"', "fill_within"),
    ('aggregate = "mean"', 'aggregate = "last"', "min_samples"),
    ('aggregate = "mean"', 'aggregate = "sum"', "power.active"),
    ('aggregate = "delta", slot', 'aggregate = "delta", clamp = [0, 1], slot', "clamp: does not go"),
    ('aggregate = "state", slot', 'aggregate = "state", fill_within = "1h", slot', "fill_within"),
    ('pseudonymise = "1d"', 'pseudonymise = "90m"', "multiple of slot"),
    ('pseudonymise = "1d"', 'pseudonymise = "400d"', "366d"),
    ('measurand = "other"', 'measurand = "power.factor"', "pseudonymise"),
    ('measurand = "other"', 'measurand = "pressure"', "unit: unit '1' does not fit measurand pressure"),
    ("range = [0, 500]", "range = [5, 5]", "range"),
    ("retention_days = 20", "retention_days = 31", "its consumer's"),
    ('formula = "oee"', 'formula = "quality_ratio"', "exactly"),
    ('formula = "oee"', 'formula = "magic"', "formula"),
    ('gq = "press/good"', 'gq = "press/tool"', "production.good"),
    ('gq = "press/good"', 'gq = "press/none"', "no point"),
    ("pru = 12.5", "pru = 0", "above 0"),
    ('raw = "general-3", released = "general-1" }\n\n[[secret]]',
     'raw = "general-2", released = "general-1" }\n\n[[secret]]', "below the highest raw class of its inputs"),
    ('classes = { raw = "general-3" }\n', "", "need classes"),
    ('point = "press/recipe"', 'point = "press/state"', "a secret, and released"),
    ('point = "press/recipe"', 'point = "press/none"', "no point"),
    ("protect = 10", "protect = 101", "protect"),
    ('[-2, "press/force"]', '[0, "press/force"]', "factor"),
    ('[-2, "press/force"]', '[-2, "meter/power"]', "every point once"),
    ("points = 5", "points = 0", "points"),
    ("number = 40", "number = 31", "taken"),
    ('minimum_agent = "0.1.0"', 'minimum_agent = "new"', "minimum_agent"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), REFUSED)
def test_every_fault_of_a_rich_policy_is_refused_and_named(old: str, new: str, told: str) -> None:
    assert told in faults(changed(old, new, RICH))


def test_a_budget_of_points_is_checked_when_it_is_read() -> None:
    text = changed("budget = { points = 5", "budget = { points = 1", RICH)
    assert read(text).consumer[1].budget.points == 1
    other = changed('consumer = "brain"\nnumber = 30', 'consumer = "park"\nnumber = 30', text)
    assert "budget.points" in faults(other)


def test_a_canary_is_no_input() -> None:
    marked = '\n[[secret]]\npoint = "press/good"\ncanary = true\n'
    assert "canary" in faults(RICH + marked)
    assert read(RICH + marked.replace("canary = true\n", "")).secret[1].point == "press/good"


# Wildcards.

LINES = "".join(
    f'\n[[point]]\ndevice = "{device}"\npoint = "{name}"\naddress = "{device}.{name}"\ntype = "Int32"\n'
    f'unit = "kW"\nmeasurand = "power.active"\n'
    for device, name in (("m.10", "p"), ("m.2", "p"), ("m.2", "q"), ("x", "p"))
)
EACH = """
[[each]]
points = "m.*/p"
consumer = "park"
number = 100
equipment = "{device}"
release = { aggregate = "mean", slot = "15m", round = 5, min_samples = 3 }
classes = { raw = "general-2", released = "general-1" }
"""


def released(policy: CompiledPolicy) -> dict[int, tuple[str, str]]:
    return {rule.number: (rule.source, rule.equipment) for rule in policy.rules}


def test_a_wildcard_is_expanded_and_frozen_when_it_is_compiled() -> None:
    policy = compiled(POLICY + LINES + EACH)
    assert {100: ("m.10/p", "m-10"), 101: ("m.2/p", "m-2")}.items() <= released(policy).items()
    assert len(policy.rules) == 5
    spelt = compiled(POLICY + LINES.replace(
        'point = "p"\naddress = "m', 'point = "p"\nconsumer = "park"\nNUMBER\naddress = "m'
    ).replace("NUMBER", 'number = 100\nequipment = "m-10"\n' + _tail(), 1).replace(
        "NUMBER", 'number = 101\nequipment = "m-2"\n' + _tail(), 1))  # fmt: skip
    assert spelt == policy


def _tail() -> str:
    return EACH.split('}"\n', 1)[1].strip()


def test_what_a_point_says_itself_comes_before_the_wildcard() -> None:
    source = 'device = "m.2"\npoint = "p"'
    own = LINES.replace(source, source + '\nnumber = 500\nequipment = "own"')
    found = released(compiled(POLICY + own + EACH))
    assert {100: ("m.10/p", "m-10"), 500: ("m.2/p", "own")}.items() <= found.items()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LINES + EACH.replace("m.*/p", "n*/p"), "no listed point matches"),
        (LINES + EACH + EACH.replace("number = 100", "number = 200"), "another [[each]] matches"),
        (LINES + EACH.replace("m.*/p", "m.*"), "each[1].points: "),
        (LINES + EACH.replace("m.*/p", "m.[12]/p"), "each[1].points: "),
        (LINES + EACH.replace('"{device}"', '"same"'), "give this one another equipment"),
    ],
)
def test_a_wildcard_that_is_wrong_is_refused(text: str, told: str) -> None:
    assert told in faults(POLICY + text)


def test_a_point_leaves_in_several_ways_with_a_number_each() -> None:
    also = """
[[point.also]]
consumer = "park"
number = 60
equipment = "meter-1"
release = { aggregate = "max", slot = "1h", round = 5 }
classes = { raw = "general-1", released = "general-1" }
"""
    text = POLICY.replace('\n[[point]]\ndevice = "press"\npoint = "state"',
                          also + '\n[[point]]\ndevice = "press"\npoint = "state"')  # fmt: skip
    policy = compile_policy(read(text))
    assert {2, 60} <= set(released(policy))
    _, park = release_sheets(policy)
    assert [(p.number, p.aggregate) for p in park.points] == [(2, "last"), (60, "max")]
    same = text.replace('aggregate = "max", slot = "1h"', 'aggregate = "last", slot = "1h"')
    assert "give this one another equipment" in faults(same)


def test_a_sheet_says_the_transforms_and_nothing_of_secrets_or_inputs() -> None:
    brain, park = release_sheets(compiled(RICH))
    by_number = {point.number: point for point in (*brain.points, *park.points)}
    mean = by_number[2]
    assert (mean.aggregate, mean.clamp, mean.delay_s, mean.fill_within_s) == (
        "mean",
        [0, 100],
        120,
        300,
    )
    assert mean.retention_days == 20
    assert by_number[30].pseudonym_s == 86_400
    assert (by_number[31].bands, by_number[31].step) == ([0, 25, 50], 1)
    assert (by_number[40].aggregate, by_number[40].measurand) == ("derived", "kpi.oee")
    for sheet in (brain, park):
        words = str(sheet.model_dump())
        for secret in ("12.5", "recipe", "press/good", "balance", "pru"):
            assert secret not in words
