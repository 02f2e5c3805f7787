"""The compiler: one text, one byte form; sheets say what a consumer gets and nothing else."""

import pytest
import zstandard

from protocols import strict_cbor
from protocols.strict_cbor import Malformed
from security.policy.compiled import (
    STATE_PARTS,
    CompiledPolicy,
    ReleaseSheet,
    content_hash,
    from_bytes,
    pack_sheet,
    to_bytes,
    unpack_sheet,
)
from security.policy.compiler import compile_policy
from security.policy.sheets import release_sheets
from security.policy.streams import stream_id
from tests.unit.policy_material import POLICY, changed, compiled, read, replaced


def test_the_same_text_gives_the_same_bytes() -> None:
    assert to_bytes(compiled()) == to_bytes(compiled())
    shuffled = POLICY.split("[[point]]")
    other = "[[point]]".join([shuffled[0], *reversed(shuffled[1:])])
    assert to_bytes(compiled(other)) == to_bytes(compiled())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("scale = 0.1", "scale = 0.10"),
        ("offset = 0\n", ""),
        ("offset = 0", "offset = 0.0"),
        ("round = 0.01", "round = 1e-2"),
        ('slot = "15m", round = 0.01', 'slot = "900s", round = 0.01'),
        ("2026-07-01T00:00:00+08:00", "2026-06-30T16:00:00Z"),
        ('role = "main"\nrelease', 'role = "main"\n# why\nrelease'),
    ],
)
def test_the_same_meaning_gives_the_same_bytes(old: str, new: str) -> None:
    assert to_bytes(compiled(changed(old, new))) == to_bytes(compiled())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 3", "version = 4"),
        ("scale = 0.1", "scale = 0.2"),
        ("round = 0.01", "round = 0.02"),
        ('slot = "1m"', 'slot = "2m"'),
        ('equipment = "press-3"', 'equipment = "press-4"'),
        ('right = "DR-2026-0017"', 'right = "DR-2026-0018"'),
        ("retention_days = 30", "retention_days = 31"),
        ('state_model = "packml"', 'state_model = "operating"'),
        ("pad = 2048", "pad = 4096"),
        ("2026-07-01", "2026-07-02"),
    ],
)
def test_another_meaning_gives_other_bytes(old: str, new: str) -> None:
    assert to_bytes(compiled(changed(old, new))) != to_bytes(compiled())


def test_nothing_of_a_withheld_point_is_in_the_compiled_policy_or_a_sheet() -> None:
    policy = compiled()
    everything = to_bytes(policy) + b"".join(to_bytes(sheet) for sheet in release_sheets(policy))
    for secret in (b"recipe", b"Recipe", b"pressure", b"bar"):
        assert secret not in everything


def test_a_sheet_has_no_local_name_or_address() -> None:
    for sheet in release_sheets(compiled()):
        data = to_bytes(sheet)
        for local in (b"holding", b"urn:x", b"uint32", b"packml", b"brain", b"park", b"general"):
            assert local not in data
        assert b"press\x00" not in data


def test_each_consumer_gets_its_own_points_only() -> None:
    brain, park = release_sheets(compiled())
    assert [point.number for point in brain.points] == [1, *range(10, 19)]
    assert [point.number for point in park.points] == [2]
    assert (brain.purpose, park.purpose) == (4, 3)
    assert (brain.right, park.right) == ("DR-2026-0017", "")
    assert [(s.window_s, s.pad) for s in brain.streams] == [(900, 2048)]
    assert [(s.window_s, s.pad) for s in park.streams] == [(60, 1024)]


def test_a_sheet_says_unit_grid_and_part_of_every_number() -> None:
    brain, park = release_sheets(compiled())
    energy, end, *parts = brain.points
    assert (energy.unit, energy.exponent, energy.step) == ("kWh", -2, 1)
    assert (energy.aggregate, energy.role) == ("delta", "main")
    assert (end.part, end.unit, end.exponent, end.step) == ("end", "1", 0, 1)
    assert [part.part for part in parts] == list(STATE_PARTS[1:])
    assert {(part.unit, part.exponent, part.step) for part in parts} == {("s", 0, 1)}
    (power,) = park.points
    assert (power.unit, power.exponent, power.step) == ("kW", 0, 5)


def test_a_sheet_names_its_policy() -> None:
    policy = compiled()
    for sheet in release_sheets(policy):
        assert sheet.policy_hash == content_hash(to_bytes(policy))
        assert sheet.policy_version == 3
        assert (sheet.valid_from, sheet.valid_until) == (policy.valid_from, policy.valid_until)


def test_a_consumer_without_points_gets_an_empty_sheet() -> None:
    text = changed('consumer = "park"', 'consumer = "brain"')
    _, park = release_sheets(compiled(text))
    assert not park.streams
    assert not park.points


def test_a_stream_depends_on_consumer_key_and_slot_length_alone() -> None:
    ids = {rule.point: rule.stream for rule in compiled().rules}
    other = changed("version = 3", "version = 9", changed("round = 0.01", "round = 10"))
    assert {rule.point: rule.stream for rule in compiled(other).rules} == ids
    assert ids["energy"] == ids["state"] != ids["power"]
    assert stream_id(b"a" * 32, 60) != stream_id(b"b" * 32, 60) != stream_id(b"b" * 32, 0)


def test_rules_come_by_number() -> None:
    numbers = [rule.number for rule in compiled().rules]
    assert numbers == sorted(numbers) == [1, 2, 10]


def test_compiled_bytes_read_back() -> None:
    policy = compiled()
    assert from_bytes(to_bytes(policy), CompiledPolicy) == policy
    for sheet in release_sheets(policy):
        assert from_bytes(to_bytes(sheet), ReleaseSheet) == sheet
        assert unpack_sheet(pack_sheet(to_bytes(sheet))) == to_bytes(sheet)


def test_other_bytes_do_not() -> None:
    data = to_bytes(compiled())
    other_aggregate = data.replace(b"edelta", b"edelto")
    assert other_aggregate != data
    for damaged in (data + b"\0", b"", b"\xa0", other_aggregate):
        with pytest.raises(Malformed):
            from_bytes(damaged, CompiledPolicy)
    with pytest.raises(Malformed):
        from_bytes(data, ReleaseSheet)


def test_no_byte_can_be_left_off_the_end() -> None:
    data = to_bytes(compiled())
    for length in range(len(data)):
        with pytest.raises(Malformed):
            from_bytes(data[:length], CompiledPolicy)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"version": "3"},
        {"version": 3.0},
        {"version": True},
        {"valid_from": None},
        {"rules": {}},
        {"previous": b"short"},
    ],
    ids=repr,
)
def test_a_field_too_many_or_of_another_type_is_refused(change: dict[str, object]) -> None:
    item = {**compiled().model_dump(exclude_defaults=True), **change}
    with pytest.raises(Malformed):
        from_bytes(strict_cbor.encode(item), CompiledPolicy)


def test_a_packed_sheet_cannot_grow_without_bound() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(64 << 20))
    for packed in (bomb, b"", b"no zstd frame", pack_sheet(b"x") + b"more"):
        with pytest.raises(Malformed):
            unpack_sheet(packed)


def test_a_policy_that_is_not_complete_is_not_compiled() -> None:
    text = read(POLICY)
    broken = text.model_copy(update={"point": [text.point[0].model_copy(update={"classes": None})]})
    with pytest.raises(ValueError, match="complete"):
        compile_policy(broken)


def test_the_hash_of_a_policy_covers_everything() -> None:
    policy = compiled()
    first = content_hash(to_bytes(policy))
    assert content_hash(to_bytes(replaced(policy, version=4))) != first
