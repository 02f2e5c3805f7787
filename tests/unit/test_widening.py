"""Widening is decided by the machine: what is not shown to be as narrow as before is wider."""

from pathlib import Path

import pytest

from security.policy.bundle import (
    NoPolicy,
    TrustedPolicy,
    cosign_bundle,
    keep_enforced,
    load_policy,
    officers_to_widen,
    peek_bundle,
    read_bundle,
    read_enforced,
    sign_bundle,
    write_bundle,
)
from security.policy.compiled import (
    CompiledPolicy,
    ReleaseSheet,
    content_hash,
    from_bytes,
    to_bytes,
)
from security.policy.compiler import compile_policy
from security.policy.sheets import release_sheets
from security.policy.succession import succession_faults
from security.policy.widening import widens
from tests import small_cddl
from tests.documents import ROOT, blocks
from tests.unit.policy_material import (
    BRAIN_PIN,
    NOW_S,
    POLICY,
    RECEIPT_PIN,
    changed,
    compiled,
    officer,
    read,
)

RICH = (
    changed(
        'release = { aggregate = "last", slot = "1m", round = 5 }',
        'release = { aggregate = "mean", slot = "1m", round = 5, clamp = [0, 100], min_samples = 10, '
        'delay = "2m", fill_within = "5m" }\nrange = [0, 500]\nretention_days = 20',
        changed(
            'purpose = "carbon-emission"\n',
            'purpose = "carbon-emission"\nbudget = { points = 5, rows = 2000, bytes = 100000 }\n',
            changed('class_ceiling = "general-1"', 'class_ceiling = "general-1"\nminimum_agent = "0.1.0"'),
        ),
    )
    + """
[[point]]
device = "press"
point = "good"
address = "nsu=urn:x;s=Good"
type = "UInt32"
unit = "pcs"
measurand = "production.good"
origin = "opcua opc.tcp://press:4840"
classes = { raw = "general-3" }

[[point]]
device = "press"
point = "tool"
address = "nsu=urn:x;s=Tool"
type = "UInt32"
unit = "1"
measurand = "other"
consumer = "brain"
number = 30
equipment = "tool"
release = { aggregate = "last", slot = "1h", round = 1, pseudonymise = "1d" }
classes = { raw = "general-2", released = "general-1" }

[[point]]
device = "press"
point = "force"
address = "nsu=urn:x;s=Force"
origin = "opcua opc.tcp://a:4840"
type = "Double"
unit = "bar"
measurand = "pressure"
consumer = "brain"
number = 31
equipment = "press-3"
release = { aggregate = "max", slot = "1h", bands = [0, 25, 50] }
classes = { raw = "general-2", released = "general-1" }

[[derive]]
name = "oee-press"
formula = "oee"
inputs = { state = "press/state", gq = "press/good" }
constants = { pru = 12.5 }
consumer = "brain"
number = 40
equipment = "press-3"
release = { slot = "1h", round = 0.01, delay = "1h" }
classes = { raw = "general-3", released = "general-1" }

[[secret]]
point = "press/recipe"
protect = 10
canary = true

[[relation]]
name = "balance"
zero = [[1, "meter/power"], [-2, "press/force"]]
"""
)  # fmt: skip

WIDER = [
    ("valid_until = 2026-07-01", "valid_until = 2026-07-02", "longer-validity"),
    ("valid_from = 2026-01-01", "valid_from = 2025-12-31", "longer-validity"),
    ('class_ceiling = "general-1"', 'class_ceiling = "general-2"', "higher-ceiling"),
    ('minimum_agent = "0.1.0"\n', "", "older-agent"),
    (RECEIPT_PIN, "sha256:" + "4d" * 32, "other-key"),
    ("energy-statistics", "industrial-brain", "other-purpose"),
    ("DR-2026-0017", "DR-2026-0018", "other-right"),
    ("retention_days = 730", "retention_days = 731", "longer-retention"),
    ("pad = 2048", "pad = 1024", "finer-padding"),
    ("rows = 2000", "rows = 2001", "larger-budget"),
    (", bytes = 100000", "", "larger-budget"),
    (BRAIN_PIN, "sha256:" + "5e" * 32, "new-consumer"),
    ('consumer = "park"', 'consumer = "brain"', "other-consumer"),
    ("number = 2\n", "number = 3\n", "new-point"),
    ('equipment = "meter-1"', 'equipment = "meter-2"', "other-label"),
    ('role = "main"', 'role = "sub"', "other-label"),
    ('"holding:12"', '"holding:14"', "other-source"),
    ("scale = 0.001", "scale = 0.01", "other-source"),
    ('origin = "opcua opc.tcp://a:4840"', 'origin = "opcua opc.tcp://b:4840"', "other-source"),
    ('origin = "opcua opc.tcp://a:4840"\n', "", "other-source"),
    ('origin = "opcua opc.tcp://press:4840"\n', "", "other-source"),
    ("range = [0, 500]", "range = [0, 501]", "wider-range"),
    ("range = [0, 500]\n", "", "wider-range"),
    ('"mean", slot = "1m"', '"mean", slot = "30s"', "shorter-window"),
    ('"state", slot = "15m"', '"state", slot = "20m"', "shifted-window"),
    ("round = 5,", "round = 1,", "finer-rounding"),
    ("round = 0.01 }\nclasses", "round = 0.015 }\nclasses", "finer-rounding"),
    ('"mean"', '"min"', "new-statistic"),
    ("clamp = [0, 100], ", "", "wider-clamp"),
    ("clamp = [0, 100]", "clamp = [0, 105]", "wider-clamp"),
    ("min_samples = 10", "min_samples = 9", "fewer-samples"),
    ('slot = "1m", round = 5, clamp = [0, 100], min_samples = 10',
     'slot = "5m", round = 5, clamp = [0, 100], min_samples = 45', "fewer-samples"),
    ('delay = "2m"', 'delay = "1m"', "shorter-delay"),
    ('fill_within = "5m"', 'fill_within = "6m"', "longer-filling"),
    ("retention_days = 20", "retention_days = 21", "longer-retention"),
    ('pseudonymise = "1d"', 'pseudonymise = "2d"', "weaker-pseudonym"),
    ('pseudonymise = "1d"', 'pseudonymise = "16h"', "weaker-pseudonym"),
    (', pseudonymise = "1d"', "", "weaker-pseudonym"),
    ("bands = [0, 25, 50]", "bands = [0, 10, 25, 50]", "finer-rounding"),
    ("bands = [0, 25, 50]", "round = 100", "finer-rounding"),
    ("pru = 12.5", "pru = 12.4", "other-source"),
    ('delay = "1h"', 'delay = "0s"', "shorter-delay"),
    ("canary = true\n", "", "weaker-secret"),
    ("protect = 10", "protect = 9", "weaker-secret"),
    ('[-2, "press/force"]', '[-1, "press/force"]', "weaker-relation"),
    ('raw = "general-3", released = "general-1" }\n\n[[point]]',
     'raw = "general-2", released = "general-1" }\n\n[[point]]', "lower-class"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "kind"), WIDER)
def test_what_lets_out_more_is_wider_and_the_way_back_is_another_matter(
    old: str, new: str, kind: str
) -> None:
    before, after = compiled(RICH), compiled(changed(old, new, RICH))
    assert kind in {one.kind for one in widens(before, after)}


NARROWER = [
    ('"holding:12"\n', '"holding:12"\norigin = "modbus tcp a:502 unit 1 order ABCD"\n'),
    ("valid_until = 2026-07-01", "valid_until = 2026-06-01"),
    ("retention_days = 730", "retention_days = 30"),
    ("pad = 2048", "pad = 8192"),
    ("rows = 2000", "rows = 10"),
    ('slot = "1m", round = 5, clamp = [0, 100], min_samples = 10',
     'slot = "5m", round = 5, clamp = [0, 100], min_samples = 46'),
    ("round = 5,", "round = 10,"),
    ("min_samples = 10", "min_samples = 20"),
    ('delay = "2m"', 'delay = "3m"'),
    ('fill_within = "5m"', 'fill_within = "0s"'),
    ("retention_days = 20", "retention_days = 2"),
    ('pseudonymise = "1d"', 'pseudonymise = "12h"'),
    ("bands = [0, 25, 50]", "bands = [0, 50]"),
    ("protect = 10", "protect = 20"),
    ("class_ceiling", "stop = true\nclass_ceiling"),
    ('address = "holding:12"', 'address = "holding:12"\nstop = true'),
    ('[[derive]]\nname = "oee-press"', '[[derive]]\nname = "oee-press"\nstop = true'),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), NARROWER)
def test_what_lets_out_no_more_is_not_wider_but_undoing_it_is(old: str, new: str) -> None:
    before, after = compiled(RICH), compiled(changed(old, new, RICH))
    assert to_bytes(before) != to_bytes(after)
    assert widens(before, after) == []
    assert widens(after, before)


@pytest.mark.parametrize(
    ("aggregate", "old", "new", "kinds"),
    [
        ("last", "range = [0, 500]", "range = [1, 50]", []),
        ("mean", "range = [0, 500]", "range = [1, 50]", ["new-statistic"]),
        ("min", "range = [0, 500]", "range = [1, 50]", ["new-statistic"]),
        ("max", "range = [0, 500]", "range = [1, 50]", ["new-statistic"]),
        ("max", "range = [0, 500]", "range = [0.0, 500.0]", []),
        ("last", "clamp = [0, 100]", "clamp = [10, 50]", []),
        ("max", "clamp = [0, 100]", "clamp = [10, 50]", []),
        ("mean", "clamp = [0, 100]", "clamp = [10, 50]", ["new-statistic"]),
        ("mean", "clamp = [0, 100], ", "", ["wider-clamp"]),
    ],
)
def test_narrower_bounds_are_wider_where_they_make_a_statistic_of_other_samples(
    aggregate: str, old: str, new: str, kinds: list[str]
) -> None:
    """The highest sample below a peak does not follow from the peak: under both, two values leave."""
    text = changed('"mean"', f'"{aggregate}"', RICH)
    text = changed("min_samples = 10, ", "", text)
    found = widens(compiled(text), compiled(changed(old, new, text)))
    assert [one.kind for one in found] == kinds


def test_a_policy_is_not_wider_than_itself_and_everything_is_wider_than_nothing() -> None:
    policy = compiled(RICH)
    assert widens(policy, policy) == []
    assert {one.number for one in widens(None, policy)} == {1, 2, 10, 30, 31, 40}


# Succession.


def after(previous: CompiledPolicy, text: str, version: int = 4) -> CompiledPolicy:
    pin = "sha256:" + content_hash(to_bytes(previous)).hex()
    text = changed("sha256:" + "0f" * 32, pin, text)
    return compile_policy(read(changed("version = 3", f"version = {version}", text)), previous)


def without(point: str, text: str = POLICY) -> str:
    parts = text.split("[[point]]")
    return "[[point]]".join(part for part in parts if f'point = "{point}"' not in part)


def test_a_number_is_never_given_to_another_point_even_many_versions_later() -> None:
    first = compiled()
    second = after(first, without("power"))
    third = after(second, without("power"), version=5)
    assert [(one.number, one.width) for one in third.retired] == [(2, 1)]
    taken = changed('measurand = "pressure"\n', 'measurand = "pressure"\nconsumer = "park"\nnumber = 2\n'
                    'equipment = "x"\nrelease = { aggregate = "last", slot = "1m", round = 5 }\n'
                    'classes = { raw = "general-1", released = "general-1" }\n', without("power"))  # fmt: skip
    with pytest.raises(Exception, match="belonged to another point"):
        after(third, taken, version=6)
    back = after(third, POLICY, version=6)
    assert back.retired == []
    assert "new-point" in {one.kind for one in widens(third, back)}


def test_a_stopped_point_keeps_its_numbers() -> None:
    text = changed('address = "nsu=urn:x;s=State"', 'address = "nsu=urn:x;s=State"\nstop = true')
    stopped = compiled(text)
    assert [(one.number, one.width) for one in stopped.retired] == [(10, 9)]
    assert {rule.number for rule in stopped.rules} == {1, 2}


def test_a_policy_that_forgot_a_number_or_its_predecessor_does_not_follow() -> None:
    first = compiled()
    pin = "sha256:" + content_hash(to_bytes(first)).hex()
    text = changed("version = 3", "version = 4", without("power"))
    alone = compile_policy(read(changed("sha256:" + "0f" * 32, pin, text)))
    assert any("not kept as retired" in line for line in succession_faults(first, alone))
    other = after(first, without("power"))
    assert succession_faults(first, other) == []
    assert any("does not follow" in line for line in succession_faults(compiled(RICH), other))
    assert succession_faults(first, first) == []


def test_a_canary_cannot_be_released_in_the_version_that_unmarks_it() -> None:
    released = changed('point = "recipe"', 'point = "recipe"\nconsumer = "brain"\nnumber = 50\n'
                       'equipment = "x"\nrelease = { aggregate = "last", slot = "1m", round = 5 }\n'
                       'classes = { raw = "general-1", released = "general-1" }')  # fmt: skip
    canary = compiled(POLICY + '\n[[secret]]\npoint = "press/recipe"\ncanary = true\n')
    assert any("canary" in line for line in succession_faults(canary, after(canary, released)))
    unmarked = after(canary, POLICY)
    assert succession_faults(canary, unmarked) == []
    assert succession_faults(unmarked, after(unmarked, released, version=5)) == []


# Signing one after the other.

ALL = [officer(number).public for number in (1, 2, 3)]


def test_two_officers_sign_the_same_bytes_on_separate_machines() -> None:
    policy = compiled(RICH)
    first = sign_bundle(policy, [officer(2)])
    both = cosign_bundle(first, [officer(1)])
    assert both == sign_bundle(policy, [officer(1), officer(2)])
    assert both == sign_bundle(policy, [officer(1)], partly=first)
    trusted = read_bundle(both, ALL, 2)
    assert set(trusted.signers) == {officer(1).public.kid, officer(2).public.kid}
    assert peek_bundle(first).signers == (officer(2).public.kid,)
    assert cosign_bundle(both, [officer(1)]) == both


def test_everything_that_can_be_written_is_read_again_and_described() -> None:
    policy = compiled(RICH)
    assert from_bytes(to_bytes(policy), CompiledPolicy) == policy
    page = (ROOT / "docs/policy-language.md").read_text("utf-8")
    schema = small_cddl.read("hash = bstr .size 32\n" + "\n".join(blocks(page, "cddl")))
    assert schema.valid("compiled-policy", to_bytes(policy))
    for sheet in release_sheets(policy):
        assert from_bytes(to_bytes(sheet), ReleaseSheet) == sheet


def test_a_bundle_of_another_policy_is_not_merged_into_this_one() -> None:
    other = sign_bundle(compiled(), [officer(2)])
    mine = sign_bundle(compiled(RICH), [officer(1)], partly=other)
    assert peek_bundle(mine).signers == (officer(1).public.kid,)
    assert sign_bundle(compiled(), [officer(1)], partly=b"rubbish") == sign_bundle(
        compiled(), [officer(1)]
    )


def test_it_takes_two_to_widen_where_there_are_two_and_never_nobody() -> None:
    assert officers_to_widen(ALL[:1], 1, None) == 1
    assert officers_to_widen([ALL[0], ALL[0]], 1, None) == 1
    assert officers_to_widen(ALL[:2], 1, None) == 2
    assert officers_to_widen(ALL, 3, None) == 3
    assert officers_to_widen(ALL, 1, 1) == 1
    assert officers_to_widen(ALL, 2, 1) == 2


def load(folder: Path, last: CompiledPolicy | None, **more: object) -> TrustedPolicy:
    known = (last.version, content_hash(to_bytes(last))) if last is not None else (0, b"")
    return load_policy(
        folder / "policy.signed",
        ALL,
        1,
        now_s=NOW_S,
        last_version=known[0],
        last_hash=known[1],
        last=lambda: last,
        **more,  # type: ignore[arg-type]  # named by the caller
    )


def test_one_of_three_officers_may_narrow_but_not_widen(tmp_path: Path) -> None:
    path = tmp_path / "policy.signed"
    first = compiled()
    narrower = after(first, changed("round = 5", "round = 50"))
    wider = after(first, changed("round = 5", "round = 1"))
    write_bundle(path, sign_bundle(narrower, [officer(1)]))
    assert load(tmp_path, first).policy == narrower
    write_bundle(path, sign_bundle(wider, [officer(1)]))
    with pytest.raises(NoPolicy, match="widens what leaves"):
        load(tmp_path, first)
    write_bundle(path, sign_bundle(wider, [officer(1), officer(1)]))
    with pytest.raises(NoPolicy, match="not signed by enough"):
        load(tmp_path, first)
    write_bundle(path, sign_bundle(wider, [officer(1), officer(3)]))
    assert load(tmp_path, first).policy == wider
    # To begin with, everything is new.
    write_bundle(path, sign_bundle(first, [officer(1)]))
    with pytest.raises(NoPolicy, match="3 reason"):
        load(tmp_path, None)


def test_a_policy_that_does_not_follow_the_last_is_refused_with_the_right_hash(
    tmp_path: Path,
) -> None:
    first = compiled()
    unrelated = compiled(changed("version = 3", "version = 9"))
    write_bundle(tmp_path / "policy.signed", sign_bundle(unrelated, [officer(1), officer(2)]))
    with pytest.raises(NoPolicy, match=content_hash(to_bytes(first)).hex()):
        load(tmp_path, first)


def test_an_agent_that_is_too_old_enforces_nothing(tmp_path: Path) -> None:
    text = changed("class_ceiling", 'minimum_agent = "0.10.0"\nclass_ceiling')
    write_bundle(tmp_path / "policy.signed", sign_bundle(compiled(text), [officer(1), officer(2)]))
    for version in ("0.9.9", "0.1.0"):
        with pytest.raises(NoPolicy, match=r"asks for agent 0\.10\.0"):
            load(tmp_path, None, agent_version=version)
    for version in ("0.10.0", "1.0.0", ""):
        assert load(tmp_path, None, agent_version=version).policy.minimum_agent == "0.10.0"


def test_what_was_enforced_is_known_again_only_by_its_hash(tmp_path: Path) -> None:
    path, policy = tmp_path / "policy.enforced", compiled(RICH)
    keep_enforced(path, policy)
    hashed = content_hash(to_bytes(policy))
    assert read_enforced(path, hashed) == policy
    assert read_enforced(path, b"x" * 32) is None
    assert read_enforced(tmp_path / "none", hashed) is None
    path.write_bytes(path.read_bytes()[:-1])
    assert read_enforced(path, hashed) is None
