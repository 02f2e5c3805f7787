"""The policy language: default deny, and no mistake in it lets more out."""

import random
import re
import tomllib
from pathlib import Path

import pytest

from protocols import strict_cbor
from protocols.errors import ConfigError
from protocols.settings import load_settings
from security.policy import language
from security.policy.clauses import grid_of
from security.policy.compiled import CompiledPolicy, Rule, SheetPoint
from security.policy.compiler import MOST_ITEMS, compile_policy
from security.policy.language import MOST_NUMBERS, MOST_RELEASED, PolicyText
from tests.unit.policy_material import BRAIN_PIN, OTHER_PIN, POLICY, changed, compiled, read

MUTATIONS = 400


def faults(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def test_what_has_no_release_is_withheld() -> None:
    policy = read(POLICY)
    assert {(rule.device, rule.point) for rule in policy.released()} == {
        ("meter", "energy"),
        ("meter", "power"),
        ("press", "state"),
    }


def test_a_policy_without_points_releases_nothing() -> None:
    text = POLICY.split("[[point]]")[0] + "point = []\n"
    with pytest.raises(ConfigError):
        read(text)  # under [[consumer]], where it means nothing
    head, tail = POLICY.split("[[point]]")[0].split("[[consumer]]", 1)
    assert compile_policy(read(f"{head}point = []\n[[consumer]]{tail}")).rules == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('policy = "mg-policy/1"', 'policy = "mg-policy/2"', "policy"),
        ("version = 3", "version = 0", "version"),
        ("version = 3", "versoin = 3", "versoin"),
        ('previous = "sha256:', 'previous = "sha1:', "as 'policy sign' and 'policy show' print it"),
        ("valid_until = 2026-07-01", "valid_until = 2025-07-01", "valid_until"),
        ("valid_until = 2026-07-01T00:00:00+08:00", 'valid_until = "7/1"', "such as 2026-01-31T08:00"),
        ("00:00:00Z", "00:00:00", "zone"),
        ('class_ceiling = "general-1"', 'class_ceiling = "core"', "class_ceiling"),
        ('class_ceiling = "general-1"', 'class_ceiling = "important"', "class_ceiling"),
        ("energy-statistics", "advertising", "purpose"),
        ("retention_days = 730", "retention_days = 0", "retention_days"),
        ("pad = 2048", "pad = 16", "pad"),
        (BRAIN_PIN, "sha256:1a1a", "pin"),
        (BRAIN_PIN, BRAIN_PIN.upper(), "pin"),
        (OTHER_PIN, BRAIN_PIN, "consumer[2].encryption_key: "),
        ('id = "park"', 'id = "brain"', "consumer[2].id: 'brain' is that of consumer[1] already"),
        ('consumer = "park"', 'consumer = "pork"', "no [[consumer]] with id"),
        ('consumer = "park"\n', "", "consumer"),
        ("number = 2\n", "", "number"),
        ("number = 2", "number = 1", "number is taken"),
        ("number = 2", "number = 18", "number is taken"),
        ("number = 2", "number = 0", "number"),
        ("number = 2", "number = 2147483648", "number"),
        ("number = 10", "number = 2147483640", "nine numbers"),
        ('point = "power"', 'point = "energy"', "point[2].point: 'meter/energy' is that of point[1] already"),
        ('equipment = "press-3"', 'equipment = "Press 3"', "label"),
        ('equipment = "press-3"', 'equipment = "压机"', "label"),
        ('equipment = "press-3"\n', "", "equipment"),
        ('role = "main"', 'role = "boss"', "role"),
        ('measurand = "power.active"', 'measurand = "power.actvie"', "measurand"),
        ('aggregate = "delta"', 'aggregate = "last"', "delta"),
        ('aggregate = "last"', 'aggregate = "delta"', "last"),
        ('aggregate = "state"', 'aggregate = "mean"', "release it as 'state'"),
        ('aggregate = "state"', 'aggregate = "median"', "aggregate"),
        ('state_model = "packml"\n', "", "state_model"),
        ('state_model = "packml"', 'state_model = "pack"', "state_model"),
        ('slot = "1m"', 'slot = "7m"', "slot"),
        ('slot = "1m"', 'slot = "500ms"', "slot"),
        ('slot = "1m"', 'slot = "2d"', "slot"),
        ('slot = "1m"', "slot = 60", "slot"),
        ('slot = "1m"', 'slot = "0s"', "slot"),
        ("round = 5", "round = 0", "round"),
        ("round = 5", "round = -1", "round"),
        ("round = 5", "round = nan", "round"),
        ("round = 5", "round = inf", "round"),
        ("round = 5", "round = 1e-10", "round"),
        ("round = 5", "round = 1e300", "round"),
        ("round = 5", "round = 9007199254740993", "round"),
        ("round = 1 }", "round = 7 }", "divide"),
        ('raw = "general-1"', 'raw = "important"', "may not leave"),
        ('raw = "general-1"', 'raw = "core"', "may not leave"),
        ('raw = "general-2", released = "general-1"', 'raw = "general-2", released = "general-2"',
         "may not leave"),
        ('released = "general-1" }\n\n[[point]]\ndevice = "press"\npoint = "state"',
         'released = "general-2" }\n\n[[point]]\ndevice = "press"\npoint = "state"',
         "may not leave"),
        ("scale = 0.1", "scale = nan", "scale"),
        ('device = "meter"\npoint = "energy"', 'device = "mеter"\npoint = "energy"', "device"),
        ('device = "meter"\npoint = "energy"', 'device = "me\\u202eter"\npoint = "energy"',
         "device"),
    ],
)  # fmt: skip
def test_every_fault_is_refused_and_named(old: str, new: str, told: str) -> None:
    assert told in faults(changed(old, new))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("number = 2", "number = 1", "point[2].number: "),
        ('consumer = "park"', 'consumer = "pork"', "point[2].consumer: "),
        ("valid_until = 2026", "valid_until = 1999", "valid_until: "),
        ('raw = "general-1"', 'raw = "core"', "point[2].classes: "),
        ("scale = 0.1", "scale = nan", "point[1].scale: "),
        (OTHER_PIN, BRAIN_PIN, "consumer[2].encryption_key: "),
    ],
)
def test_what_only_the_whole_policy_tells_has_line_key_and_remedy_too(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(changed(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, PolicyText)
    fault = next(one for one in caught.value.faults if one.what.startswith(told))
    line = path.read_text("utf-8").splitlines()[int(fault.where.rpartition(":")[2]) - 1]
    assert line.startswith(told.rpartition(".")[2].removesuffix(": "))
    assert fault.remedy


def test_a_class_is_never_higher_after_than_before() -> None:
    """Whatever the ceiling allows."""
    text = changed('class_ceiling = "general-1"', 'class_ceiling = "general-4"')
    assert len(read(text).released()) == 3
    higher = changed('raw = "general-1", released = "general-1"',
                     'raw = "general-1", released = "general-2"', text)  # fmt: skip
    assert "may not leave" in faults(higher)


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    text = changed("version = 3", "verzion = 3")
    text = changed('slot = "1m"', 'slot = "7m"', text)
    path.write_text(changed("retention_days = 30", "retention_dayz = 30", text), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, PolicyText)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.faults) == 5  # a misspelt key is also a missing one
    assert all(str(path) in line for line in lines)
    assert any(f"{path}:2: verzion" in line and "version" in line for line in lines)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("step", "grid"),
    [("1", (0, 1)), ("25", (0, 25)), ("0.25", (-2, 25)), ("100", (0, 100)), ("0.010", (-2, 1))],
)
def test_a_step_is_a_whole_number_of_powers_of_ten(step: str, grid: tuple[int, int]) -> None:
    text = changed('slot = "1m", round = 5', f'slot = "1m", round = {step}')
    release = read(text).point[1].release
    assert release is not None
    assert release.round is not None
    assert grid_of(release.round) == grid


def test_what_may_be_signed_can_be_read_again() -> None:
    """The strict decoder takes about a million items: a map, and a key and a value per field."""
    most = strict_cbor._MAX_ITEMS - 10_000
    assert most > MOST_ITEMS
    for bound, model in ((MOST_RELEASED, Rule), (MOST_NUMBERS, SheetPoint)):
        always = [field for field in model.model_fields.values() if field.is_required()]
        assert bound * (1 + 2 * len(always)) < MOST_ITEMS


@pytest.mark.parametrize("most", ["MOST_RELEASED", "MOST_NUMBERS"])
def test_more_than_can_be_read_again_is_refused(most: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy releases three points, ten numbers of them to one consumer."""
    enough = {"MOST_RELEASED": 3, "MOST_NUMBERS": 10}[most]
    monkeypatch.setattr(language, most, enough)
    assert len(read(POLICY).released()) == 3
    monkeypatch.setattr(language, most, enough - 1)
    assert "too much is released" in faults(POLICY)


Visible = dict[tuple[str, str], tuple[object, ...]]


def visible(policy: CompiledPolicy) -> Visible:
    """Return what makes a released point visible, and to whom."""
    return {
        (rule.device, rule.point): (
            policy.consumers[rule.consumer].encryption_key,
            rule.aggregate,
            rule.window_s,
            rule.exponent,
            rule.step,
            *(rule.address, rule.type, rule.unit, rule.scale, rule.offset, rule.state_model),
        )
        for rule in policy.rules
    }


def keys_of(text: str) -> list[tuple[int, int]]:
    """Return where the keys and table names of a TOML text are, inline ones included."""
    return [
        match.span(1)
        for match in re.finditer(r"(?:^|[{,\[])\s*([A-Za-z_]+)\s*(?==|\]\])", text, re.MULTILINE)
    ]


def mutants(text: str, count: int) -> list[str]:
    """Return the text with one character of one key changed, added, dropped or swapped."""
    chance = random.Random(20260105)
    alphabet = "abcdefghijklmnopqrstuvwxyzABCXYZ0189_-. \"'#=[]{},\n\u0435\u200b"
    found = []
    for _ in range(count):
        start, end = chance.choice(keys_of(text))
        at = chance.randrange(start, end)
        letter = chance.choice(alphabet)
        found.append(
            chance.choice(
                [
                    text[:at] + letter + text[at + 1 :],
                    text[:at] + letter + text[at:],
                    text[:at] + text[at + 1 :],
                    text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :],
                ]
            )
        )
    return found


def test_the_mutations_reach_every_key() -> None:
    names = {POLICY[start:end] for start, end in keys_of(POLICY)}
    assert {
        "policy",
        "version",
        "class_ceiling",
        "consumer",
        "point",
        "release",
        "classes",
    } <= names
    assert {"aggregate", "slot", "round", "raw", "released", "scale", "offset", "pad"} <= names


def test_no_key_misspelt_by_a_character_releases_more() -> None:
    allowed = visible(compiled())
    original = compiled()
    refused = 0
    for text in mutants(POLICY, MUTATIONS):
        if text == POLICY:
            continue
        try:
            policy = compile_policy(read(text))
        except (ConfigError, tomllib.TOMLDecodeError):
            refused += 1
            continue
        for source, terms in visible(policy).items():
            # A line that became a comment may leave a point with another source than it has:
            # the gate suspends that, and nothing else about it may differ.
            assert terms[:5] == allowed[source][:5]
        assert original.valid_from <= policy.valid_from
        assert policy.valid_until <= original.valid_until
    assert refused > MUTATIONS * 0.8
