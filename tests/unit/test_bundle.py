"""A signed policy is enforced whole or not at all; otherwise nothing leaves and one line says why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import cbor2
import pytest

from protocols import strict_cbor
from protocols.strict_cbor import Malformed
from security import cose
from security.keys import BadSignature, SigningKey, VerifyKey
from security.policy.bundle import (
    POLICY as POLICY_TYPE,
)
from security.policy.bundle import (
    SHEET,
    NoPolicy,
    TrustedPolicy,
    load_policy,
    read_bundle,
    read_sheet,
    sign_bundle,
    write_bundle,
)
from security.policy.compiled import (
    CompiledPolicy,
    SecretSource,
    content_hash,
    from_bytes,
    to_bytes,
)
from security.policy.sheets import release_sheets
from security.policy.streams import stream_id
from tests.unit.policy_material import NOW_S, compiled, officer, replaced

ONE = [officer(1)]
TRUSTED = [officer(number).public for number in (1, 2, 3)]


def load(
    path: Path,
    officers: Sequence[VerifyKey] = TRUSTED,
    threshold: int = 1,
    **more: Any,
) -> TrustedPolicy:
    terms = {"now_s": NOW_S, "last_version": 0, "last_hash": b"", "widen_threshold": 1, **more}
    return load_policy(path, officers, threshold, **terms)


def signed(path: Path, policy: CompiledPolicy | None = None, keys: list[SigningKey] = ONE) -> Path:
    file = path / "policy.signed"
    write_bundle(file, sign_bundle(policy or compiled(), keys))
    return file


def refusal(*args: Any, **more: Any) -> str:
    with pytest.raises(NoPolicy) as caught:
        load(*args, **more)
    line = str(caught.value)
    assert "\n" not in line
    assert "nothing leaves" in line
    assert str(args[0]) in line
    assert caught.value.remedy
    return line


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLGATE_LANG", "en")


def test_a_policy_that_enough_officers_signed_is_enforced(tmp_path: Path) -> None:
    policy = compiled()
    trusted = load(signed(tmp_path, policy, [officer(3), officer(1)]), threshold=2)
    assert trusted.policy == policy
    assert trusted.hash == content_hash(to_bytes(policy))
    assert [sheet.sheet for sheet in trusted.sheets] == release_sheets(policy)
    for sheet in trusted.sheets:
        assert read_sheet(sheet.signed, TRUSTED, 2) == sheet


def test_no_file_no_policy(tmp_path: Path) -> None:
    assert "no signed policy" in refusal(tmp_path / "policy.signed")
    assert "no signed policy" in refusal(tmp_path)


def test_an_unknown_officer_does_not_count(tmp_path: Path) -> None:
    path = signed(tmp_path, keys=[officer(9)])
    assert "not signed by enough" in refusal(path)
    assert "not signed by enough" in refusal(signed(tmp_path, keys=[officer(1), officer(9)]))


def test_too_few_signatures_are_none(tmp_path: Path) -> None:
    assert "not signed by enough" in refusal(signed(tmp_path), threshold=2)


def test_one_officer_does_not_count_twice(tmp_path: Path) -> None:
    path = signed(tmp_path, keys=[officer(1), officer(1)])
    assert "not signed by enough" in refusal(path, threshold=2)
    # Nor when the same key is trusted twice.
    twice = [officer(1).public, officer(1).public]
    assert "not signed by enough" in refusal(signed(tmp_path), twice, threshold=2)


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_of_nobody_trusts_nobody(tmp_path: Path, threshold: int) -> None:
    assert "not signed by enough" in refusal(signed(tmp_path), threshold=threshold)


def test_nobody_trusted_nothing_enforced(tmp_path: Path) -> None:
    assert "not signed by enough" in refusal(signed(tmp_path), [])


@pytest.mark.parametrize("edge", ["valid_from", "valid_until"])
def test_outside_of_its_validity_it_is_not_enforced(tmp_path: Path, edge: str) -> None:
    policy = compiled()
    path = signed(tmp_path, policy)
    at = getattr(policy, edge)
    outside = at - 1 if edge == "valid_from" else at
    assert "expired or not yet valid" in refusal(path, now_s=outside)
    inside = at if edge == "valid_from" else at - 1
    assert load(path, now_s=inside).policy == policy


def test_an_older_version_is_not_enforced_again(tmp_path: Path) -> None:
    path = signed(tmp_path)
    assert "older" in refusal(path, last_version=4, last_hash=b"x" * 32)


def test_the_same_version_with_other_content_is_not_enforced(tmp_path: Path) -> None:
    policy = compiled()
    path = signed(tmp_path, policy)
    assert "other than" in refusal(path, last_version=3, last_hash=b"x" * 32)
    own = content_hash(to_bytes(policy))
    assert load(path, last_version=3, last_hash=own).policy == policy
    assert load(path, last_version=2, last_hash=b"x" * 32).policy == policy


def test_a_rollback_is_told_before_an_expiry_so_that_the_clock_hides_nothing(
    tmp_path: Path,
) -> None:
    path = signed(tmp_path)
    assert "older" in refusal(path, last_version=4, last_hash=b"x" * 32, now_s=0)


def test_a_half_written_file_is_no_policy_at_any_length(tmp_path: Path) -> None:
    data = sign_bundle(compiled(), ONE)
    path = tmp_path / "policy.signed"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert refusal(path)


def test_any_changed_bit_makes_it_no_policy(tmp_path: Path) -> None:
    data = sign_bundle(compiled(), ONE)
    path = tmp_path / "policy.signed"
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        assert refusal(path)


def test_bytes_behind_the_end_make_it_no_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.signed"
    path.write_bytes(sign_bundle(compiled(), ONE) + b"\0")
    assert "damaged" in refusal(path)


def test_the_officers_text_itself_is_no_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('policy = "mg-policy/1"', encoding="utf-8")
    assert "damaged" in refusal(path)


def bundle_of(policy: object, sheets: list[object] | None = None) -> bytes:
    """Sign anything as if it were a policy."""
    known = [to_bytes(sheet) for sheet in release_sheets(compiled())]
    written = known if sheets is None else [strict_cbor.encode(sheet) for sheet in sheets]
    content = policy if isinstance(policy, bytes) else strict_cbor.encode(policy)
    return strict_cbor.encode(
        [
            "mg-bundle/1",
            cose.sign_many(POLICY_TYPE, content, ONE),
            [cose.sign_many(SHEET, sheet, ONE) for sheet in written],
        ]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"policy": "mg-policy/2"},
        {"version": 0},
        {"class_ceiling": 7},
    ],
    ids=lambda change: next(iter(change)),
)
def test_even_signed_an_unknown_field_or_form_is_no_policy(
    tmp_path: Path, change: dict[str, object]
) -> None:
    item = {**compiled().model_dump(exclude_defaults=True), **change}
    with pytest.raises(Malformed):
        from_bytes(strict_cbor.encode(item), CompiledPolicy)
    path = tmp_path / "policy.signed"
    path.write_bytes(bundle_of(item))
    assert "damaged or of another version" in refusal(path)


METER, PRESS = 0, 2
"""Places of rules in the compiled policy: a counter, and a state."""

NO_FORM: list[tuple[str, object]] = [
    ("consumer", -1), ("consumer", 9), ("window_s", 0), ("window_s", -60), ("window_s", 86_401),
    ("step", 0), ("step", -1), ("exponent", 40), ("aggregate", "median"), ("number", 0),
    ("min_samples", 0), ("fill_within_s", -1), ("pseudonym_s", -1), ("delay_s", -1),
    ("retention_days", -1), ("clamp", [1]), ("clamp", [5, 1]), ("clamp", [1, 2, 3]),
    ("bands", [5, 1]), ("bands", [1, 1]), ("range", ["1", "2", "3"]), ("scale", 1),
    ("secret", 1),
]  # fmt: skip
"""What a field of a rule cannot hold at all."""

NO_MEANING: list[tuple[str, int, Mapping[str, object]]] = [
    ("window", METER, {"window_s": 7}),
    ("role", METER, {"role": "king"}),
    ("number", PRESS, {"number": (1 << 31) - 5}),
    ("class", METER, {"class_raw": "purple"}),
    ("class", METER, {"class_released": ""}),
    ("class", METER, {"class_raw": "general-1", "class_released": "general-2"}),
    ("class", METER, {"class_raw": "general-4", "class_released": "general-4"}),
    ("class", METER, {"class_raw": "important"}),
    ("class", METER, {"class_raw": "core"}),
    *[("scale", METER, {"scale": text}) for text in ("", "abc", "0", "-0.0", "NaN", "Infinity")],
    *[("offset", METER, {"offset": text}) for text in ("", "x", "NaN", "-Infinity")],
    *[
        ("range", METER, {"range": bounds})
        for bounds in (["1"], ["5", "1"], ["1", "1"], ["a", "b"], ["NaN", "1"], ["0", "Infinity"])
    ],
    ("measurand", METER, {"measurand": "plasma.flux"}),
    ("aggregate", METER, {"aggregate": "last"}),
    ("aggregate", METER, {"measurand": "temperature"}),
    ("state model", PRESS, {"state_model": "nonsense"}),
    ("state model", PRESS, {"state_model": ""}),
    ("pseudonym", METER, {"pseudonym_s": 3600}),
]
"""What a field of a rule can hold, and what has no meaning in it."""


@pytest.mark.parametrize(("field", "value"), NO_FORM)
def test_even_signed_a_rule_of_no_form_is_no_policy(
    tmp_path: Path, field: str, value: object
) -> None:
    policy = compiled().model_dump(exclude_defaults=True)
    policy["rules"][METER][field] = value
    with pytest.raises(Malformed, match="not a CompiledPolicy"):
        from_bytes(strict_cbor.encode(policy), CompiledPolicy)
    path = tmp_path / "policy.signed"
    path.write_bytes(bundle_of(policy))
    assert "damaged or of another version" in refusal(path)


@pytest.mark.parametrize(("word", "at", "changes"), NO_MEANING)
def test_even_signed_a_rule_without_meaning_is_no_policy(
    tmp_path: Path, word: str, at: int, changes: Mapping[str, object]
) -> None:
    """All else is right: the form, the signatures, and the sheets where there can be any."""
    known = compiled()
    rule = known.rules[at]
    if "window_s" in changes:
        key = known.consumers[rule.consumer].encryption_key
        changes = {**changes, "stream": stream_id(key, cast("int", changes["window_s"]))}
    rules = list(known.rules)
    rules[at] = rule.model_copy(update=changes)
    policy = known.model_copy(update={"rules": rules})
    content = to_bytes(policy)
    assert from_bytes(content, CompiledPolicy) == policy
    try:
        sheets = [to_bytes(sheet) for sheet in release_sheets(policy)]
    except (LookupError, ValueError):
        sheets = [to_bytes(sheet) for sheet in release_sheets(known)]
    parts = [cose.sign_many(SHEET, sheet, ONE) for sheet in sheets]
    signed_policy = cose.sign_many(POLICY_TYPE, content, ONE)
    data = strict_cbor.encode(["mg-bundle/1", signed_policy, parts])
    with pytest.raises(Malformed, match=f"a rule's {word} has no meaning"):
        read_bundle(data, TRUSTED, 1)
    path = tmp_path / "policy.signed"
    path.write_bytes(data)
    assert "damaged or of another version" in refusal(path)


HEADS: list[tuple[str, dict[str, object]]] = [
    ("minimum agent", {"minimum_agent": "latest"}),
    ("minimum agent", {"minimum_agent": "0.10"}),
    ("class ceiling", {"class_ceiling": "purple", "rules": []}),
    ("protection", {"secrets": [SecretSource(point="press/recipe", protect="much")]}),
    ("secret that leaves", {"secrets": [SecretSource(point="meter/power")]}),
]


@pytest.mark.parametrize(("word", "changes"), HEADS)
def test_even_signed_what_has_no_meaning_for_the_whole_is_no_policy(
    tmp_path: Path, word: str, changes: Mapping[str, object]
) -> None:
    """A minimum that cannot be compared would be none, and a canary would leave unnoticed."""
    data = sign_bundle(compiled().model_copy(update=changes), ONE)
    with pytest.raises(Malformed, match=f"its {word} has no meaning"):
        read_bundle(data, TRUSTED, 1)
    path = tmp_path / "policy.signed"
    path.write_bytes(data)
    assert "damaged or of another version" in refusal(path)


@pytest.mark.parametrize(("field", "value"), [("pad", 0), ("pad", 70_000), ("retention_days", 0)])
def test_even_signed_a_consumer_of_no_form_is_no_policy(field: str, value: int) -> None:
    policy = compiled().model_dump(exclude_defaults=True)
    policy["consumers"][0][field] = value
    with pytest.raises(Malformed, match="not a CompiledPolicy"):
        from_bytes(strict_cbor.encode(policy), CompiledPolicy)


@pytest.mark.parametrize(
    "doubled", ["number", "part of a state", "consumer", "key of another consumer"]
)
def test_even_signed_a_number_or_consumer_that_is_there_twice_is_no_policy(
    tmp_path: Path, doubled: str
) -> None:
    policy = compiled()
    rules, consumers = list(policy.rules), list(policy.consumers)
    if doubled == "consumer":
        consumers[1] = consumers[1].model_copy(update={"id": consumers[0].id})
    elif doubled == "key of another consumer":
        key = consumers[0].encryption_key
        consumers[1] = consumers[1].model_copy(update={"encryption_key": key})
    else:
        at, other = next(
            (n, m)
            for n, one in enumerate(rules)
            for m, two in enumerate(rules)
            if n != m
            and two.aggregate != "state"
            and (one.aggregate == "state") == (doubled != "number")
        )
        taken = rules[at].number + rules[at].width - 1
        rules[other] = rules[other].model_copy(update={"number": taken})
    path = tmp_path / "policy.signed"
    changed = policy.model_copy(update={"rules": rules, "consumers": consumers})
    path.write_bytes(sign_bundle(changed, ONE))
    assert "damaged or of another version" in refusal(path)


@pytest.mark.parametrize("text", ["e\u0301", "DR\u200b1", "D\u0420-1"], ids=ascii)
def test_even_signed_a_text_that_looks_like_another_is_no_policy(tmp_path: Path, text: str) -> None:
    policy = compiled()
    for right, good in (("DR-2", True), (text, False)):
        consumers = [one.model_copy(update={"right": right}) for one in policy.consumers]
        path = tmp_path / "policy.signed"
        path.write_bytes(sign_bundle(policy.model_copy(update={"consumers": consumers}), ONE))
        if good:
            assert load(path).policy.consumers[0].right == right
        else:
            assert "damaged or of another version" in refusal(path)


def test_sheets_that_are_not_those_of_the_policy_are_refused(tmp_path: Path) -> None:
    policy = compiled()
    brain, park = (sheet.model_dump(exclude_defaults=True) for sheet in release_sheets(policy))
    finer = {**park, "points": [{**park["points"][0], "step": 1}]}
    path = tmp_path / "policy.signed"
    for sheets in ([brain], [park, brain], [brain, park, park], [brain, finer], []):
        path.write_bytes(bundle_of(to_bytes(policy), list(sheets)))
        assert "damaged" in refusal(path)
    path.write_bytes(bundle_of(to_bytes(policy), [brain, park]))
    assert load(path).policy == policy


def test_a_sheet_of_another_signer_is_refused() -> None:
    policy = compiled()
    by_one, by_nine = sign_bundle(policy, ONE), sign_bundle(policy, [officer(9)])
    kind, signed_policy, _ = cbor2.loads(by_one)
    _, _, sheets = cbor2.loads(by_nine)
    with pytest.raises(BadSignature):
        read_bundle(strict_cbor.encode([kind, signed_policy, sheets]), TRUSTED, 1)


def test_a_sheet_is_not_taken_for_a_policy_nor_a_policy_for_a_sheet() -> None:
    policy = compiled()
    content = to_bytes(policy)
    as_sheet = cose.sign_many(SHEET, content, ONE)
    with pytest.raises(Malformed):
        read_bundle(strict_cbor.encode(["mg-bundle/1", as_sheet, []]), TRUSTED, 1)
    with pytest.raises(Malformed):
        read_sheet(
            cose.sign_many(POLICY_TYPE, to_bytes(release_sheets(policy)[0]), ONE), TRUSTED, 1
        )


@pytest.mark.parametrize("item", [[], ["mg-bundle/1"], {}, 7, ["mg-bundle/2", b"", []], "text"])
def test_another_kind_of_file_is_malformed(item: object) -> None:
    with pytest.raises(Malformed):
        read_bundle(strict_cbor.encode(item), TRUSTED, 1)


def test_signing_is_the_same_whoever_comes_first() -> None:
    policy = compiled()
    keys = [officer(2), officer(1)]
    assert sign_bundle(policy, keys) == sign_bundle(policy, keys[::-1])


def test_a_written_policy_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = signed(tmp_path)
    newer = replaced(compiled(), version=4)
    signed(tmp_path, newer)
    assert load(path).policy.version == 4
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    path = signed(tmp_path, keys=[officer(9)])
    before = path.read_bytes()
    refusal(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_the_line_is_told_in_chinese_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLGATE_LANG", "zh_CN")
    with pytest.raises(NoPolicy, match="不放行任何数据"):
        load(tmp_path / "policy.signed")
