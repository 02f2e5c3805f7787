"""The normative pages hold for real bytes: CDDL, limits, codes, and the worked example."""

import hashlib
import importlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import zstandard

from protocols import batch, strict_cbor
from protocols.batch import NO_VALUE, Block
from protocols.frame import SECOND, Frame, Quality
from protocols.points import Point, PointTable
from protocols.topics import ID_BYTES, Address
from protocols.vocabulary.purposes import PURPOSES
from security import answers, cose, envelope
from security.answers import Erased, Erasure, Head, Receipt, Refused, Request, sign_answer
from security.envelope import BATCH, SHEET, Gap, Header, commitment, genesis, pad, seal
from security.key_list import KEYS, LOST, Mark, first_list, with_key, without_key
from security.key_list import to_bytes as key_bytes
from security.keys import KID_BYTES, OpeningKey, SigningKey
from security.policy import bundle
from security.policy.bundle import TrustedPolicy, read_bundle, sign_bundle
from security.policy.compiled import STATE_PARTS, pack_sheet, to_bytes
from security.policy.compiler import compile_policy
from security.policy.gate import Gate
from security.policy.language import PolicyText
from security.policy.streams import stream_id
from security.schemes import ED25519, MLDSA65, P256
from security.secret import Secret
from tests import small_cddl
from tests.documents import blocks, codes, table, text
from tests.small_cddl import Schema
from tests.unit.gate_material import T0, Clock

WIRE = "docs/wire-format.md"
POLICY = "docs/policy-language.md"
ADDRESS = Address(b"\x01" * 16, b"\x02" * 16)
HEAD = Head(1, 7, 3, bytes(32))


@dataclass(frozen=True)
class Keys:
    agent: SigningKey
    officer: SigningKey
    brain: OpeningKey
    audit: OpeningKey


@pytest.fixture(scope="module")
def keys() -> Keys:
    seeds = [Secret(bytes([at]) * 32) for at in range(1, 5)]
    return Keys(
        SigningKey(seeds[0]), SigningKey(seeds[1]), OpeningKey(seeds[2]), OpeningKey(seeds[3])
    )


@pytest.fixture(scope="module")
def schema() -> Schema:
    return small_cddl.read("\n".join(blocks(text(WIRE), "cddl") + blocks(text(POLICY), "cddl")))


def example() -> PolicyText:
    (found,) = blocks(text(POLICY), "toml")
    return PolicyText.model_validate(tomllib.loads(found))


@pytest.fixture(scope="module")
def policy(keys: Keys) -> TrustedPolicy:
    signed = sign_bundle(compile_policy(example()), [keys.officer])
    return read_bundle(signed, [keys.officer.public], 1)


def header(keys: Keys, policy: TrustedPolicy, padded: bytes) -> Header:
    stream = policy.sheets[0].sheet.streams[0].id
    return Header(
        factory=ADDRESS.factory,
        agent=ADDRESS.agent,
        epoch=1,
        stream=stream,
        sequence=0,
        previous=genesis(ADDRESS, 1, stream),
        policy_version=policy.policy.version,
        policy_hash=policy.hash,
        sheet_hash=policy.sheets[0].hash,
        window=(0, 900),
        issued_at=1_767_600_000,
        recipients=tuple(sorted(key.public.kid for key in (keys.brain, keys.audit))),
        commitment=commitment(padded),
        receipt=(0, bytes(32)),
        purpose=policy.policy.consumers[0].purpose,
    )


def released_blocks() -> list[Block]:
    """Two blocks with wide and narrow columns, a missing cell and a span."""
    quality = np.zeros((3, 2), np.uint8)
    quality[1, 1] = NO_VALUE
    one = Block(
        slot=5,
        numbers=np.array([1, 10], np.int64),
        mantissa=np.array([[1, 2], [300, 0], [5, 70_000]], np.int64),
        quality=quality,
        span_cells=np.array([2], np.int64),
        spans=np.array([3], np.int64),
    )
    return [one, one.row_slice(0, 1)]


def batch_message(keys: Keys, policy: TrustedPolicy) -> bytes:
    padded = pad(batch.encode(released_blocks()), 1024)
    full = replace(header(keys, policy, padded), right_hash=bytes(32), gaps=(Gap(1, 2, 1),))
    return seal(full, padded, keys.agent, [keys.brain.public, keys.audit.public])


# CDDL.


def test_sealed_messages_are_what_the_page_says(
    keys: Keys, policy: TrustedPolicy, schema: Schema
) -> None:
    padded = pad(pack_sheet(policy.sheets[0].signed), 1024)
    plain = header(keys, policy, padded)
    sheet = seal(plain, padded, keys.agent, [keys.brain.public, keys.audit.public], SHEET)
    assert schema.valid("message", batch_message(keys, policy))
    assert schema.valid("message", sheet)
    assert not schema.valid("answer", sheet)


def test_a_batch_body_is_what_the_page_says(schema: Schema) -> None:
    body = zstandard.ZstdDecompressor().decompress(batch.encode(released_blocks()))
    assert schema.valid("body", body)


def test_a_sheet_and_a_policy_are_what_the_pages_say(
    keys: Keys, policy: TrustedPolicy, schema: Schema
) -> None:
    assert schema.valid("signed-sheet", policy.sheets[0].signed)
    assert schema.valid("release-sheet", to_bytes(policy.sheets[0].sheet))
    assert schema.valid("compiled-policy", to_bytes(policy.policy))
    assert schema.valid("bundle", sign_bundle(policy.policy, [keys.officer]))
    assert not schema.valid("release-sheet", to_bytes(policy.policy))


def test_answers_are_what_the_page_says(keys: Keys, schema: Schema) -> None:
    receipt = Receipt(ADDRESS, 5, (HEAD,), (Refused(HEAD, answers.BAD_SHEET),))
    assert schema.valid("answer", sign_answer(receipt, keys.agent))
    assert schema.valid("answer", sign_answer(Request(ADDRESS, 5, bytes(32)), keys.agent))
    erasure = Erasure(ADDRESS, 5, (Erased(1, 2, 3, 4, bytes(32)),))
    assert schema.valid("answer", sign_answer(erasure, keys.agent))
    assert not schema.valid("message", sign_answer(receipt, keys.agent))


def test_what_p256_keys_sign_is_what_the_pages_say(schema: Schema) -> None:
    agent, officer = (SigningKey(Secret(bytes([at]) * 32), P256) for at in (1, 2))
    brain, audit = (OpeningKey(Secret(bytes([at]) * 32)) for at in (3, 4))
    signed = sign_bundle(compile_policy(example()), [officer])
    policy = read_bundle(signed, [officer.public], 1)
    assert schema.valid("bundle", signed)
    assert schema.valid("signed-sheet", policy.sheets[0].signed)
    assert schema.valid("message", batch_message(Keys(agent, officer, brain, audit), policy))


def test_signature_schemes_are_those_of_the_code() -> None:
    rows = table(text(WIRE), "## 3a. Signatures", "| scheme ")
    found = [
        (codes_in(row[1]), [int(n) for n in re.findall(r"(\d+) bytes", row[2])]) for row in rows
    ]
    assert found[0] == (ED25519.alg, [ED25519.signature_bytes])
    assert found[1] == (P256.alg, [P256.signature_bytes // 2])
    assert found[2] == (MLDSA65.alg, [MLDSA65.signature_bytes])


def codes_in(cell: str) -> int:
    """Return the number that a cell begins with; minus is written as people do."""
    return int(cell.replace("−", "-").split(" ")[0].rstrip(","))


def test_a_list_of_keys_is_what_the_page_says(keys: Keys, schema: Schema) -> None:
    first = first_list(ADDRESS, keys.agent.public)
    following = with_key(
        first, SigningKey(Secret(bytes([9]) * 32), P256).public, Mark(1, {3: 4}), 5
    )
    ended = without_key(following, keys.agent.public.kid, Mark(2, {3: 4, 9: 1}), LOST, 6)
    for one in (following, ended):
        assert schema.valid("signed-keys", cose.sign_many(KEYS, key_bytes(one), [keys.officer]))
        assert schema.valid("key-list", key_bytes(one))


@pytest.mark.parametrize("label", sorted({*envelope._REQUIRED, *envelope._OPTIONAL, 12}))
def test_claims_are_needed_or_not_as_the_page_says(
    keys: Keys, policy: TrustedPolicy, schema: Schema, label: int
) -> None:
    signed = cose.parse_sign1(
        batch_message(keys, policy),
        content_types={BATCH: envelope.CLAIMS},
        limit=envelope.MAX_SEALED,
    )
    claims = dict(signed.headers[envelope.CLAIMS])
    assert schema.valid("claims", strict_cbor.encode(claims))
    if label == 19:
        claims[19] = [0, 1, bytes(32), 3]
    elif claims.pop(label, None) is None:
        claims[label] = 5
    assert schema.valid("claims", strict_cbor.encode(claims)) == (label in envelope._OPTIONAL)


@pytest.mark.parametrize(("reason", "legal"), [(0, False), (1, True), (5, True), (6, False)])
def test_reasons_of_gaps_end_where_the_page_says(schema: Schema, reason: int, legal: bool) -> None:
    assert schema.valid("gap", strict_cbor.encode([1, 2, reason])) == legal


def test_content_types_are_named_on_the_page() -> None:
    for page, kinds in (
        (text(WIRE), (BATCH, SHEET, *answers._KINDS, bundle.SHEET)),
        (text(POLICY), (bundle.POLICY,)),
    ):
        for kind in kinds:
            assert kind in page


# Limits and codes.


def limits() -> Iterator[tuple[str, int]]:
    for _, value, name in table(text(WIRE), "## 12. Limits", "| limit "):
        yield codes(name)[0], int(value.replace(",", ""))


@pytest.mark.parametrize(("name", "value"), list(limits()))
def test_limits_are_those_of_the_code(name: str, value: int) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(module), constant) == value


def test_sizes_in_the_cddl_are_those_of_the_code() -> None:
    cddl = "\n".join(blocks(text(WIRE), "cddl"))
    kinds = {"id": ID_BYTES, "kid": KID_BYTES, "hash": envelope.HASH_BYTES}
    for rule, size in kinds.items():
        assert f"\n{rule} = bstr .size {size}\n" in cddl
    for line in (
        f"1*{envelope._MOST_RECIPIENTS} kid",
        f"1*{envelope._MOST_RECIPIENTS} recipient",
        f"1*{envelope._MOST_GAPS} gap",
        f"1*{answers.MOST_HEADS} head",
        f"0*{answers.MOST_REFUSED} refusal",
        f"1*{answers.MOST_ERASED} erased-range",
        f"1*{cose._MOST_SIGNATURES} officer-signature",
        f"1*{batch.MAX_BLOCKS} block",
        f"rows: 1..{batch.MAX_CELLS},",
        f"slot: 0..{batch._LARGEST_SLOT - 1},",
        f"bstr .size {envelope._ENCAPSULATED} ",
        f"bstr .size {envelope._WRAPPED},",
        f"code: {answers.CANNOT_OPEN}..{answers.BAD_SHEET} ",
    ):
        assert line in cddl


@pytest.mark.parametrize(
    ("header", "module"), [("| code | name | meaning |", answers), ("", envelope)]
)
def test_codes_are_those_of_the_code(header: str, module: Any) -> None:
    page = text(WIRE)
    if module is envelope:
        page = page[page.index("Reasons of gaps, losses and ended epochs") :]
    rows = table(page, "", header or "| code | name | meaning |")
    assert rows
    for code, name, _ in rows:
        assert getattr(module, codes(name)[0]) == int(code)


def test_every_refusal_has_its_line() -> None:
    rows = table(text(WIRE), "## 11. Codes", "| code ")
    assert [int(row[0]) for row in rows] == list(answers._CODES)


def test_purposes_are_those_of_the_code() -> None:
    rows = table(text(WIRE), "## 7. Release sheet", "| code ")
    assert {codes(name)[0]: int(code) for code, name in rows} == PURPOSES


def test_genesis_and_stream_ids_are_hashes_of_what_the_page_says() -> None:
    def hashed(*parts: object) -> bytes:
        return hashlib.sha256(strict_cbor.encode(list(parts))).digest()

    pin = b"\x07" * 32
    assert genesis(ADDRESS, 2, 9) == hashed("mg1/genesis", ADDRESS.factory, ADDRESS.agent, 2, 9)
    assert stream_id(pin, 900) == int.from_bytes(hashed("mg1/stream", pin, 900)[:6], "big")
    padded = pad(b"content", 64)
    assert len(padded) == 64
    assert padded[16:24] == b"content\x80"
    assert commitment(padded) == hashlib.sha256(b"mg1/commit\x00" + padded).digest()


# The worked example of the policy language.


def seconds(clock: str) -> float:
    """Return a time of day as seconds since 08:00."""
    hours, minutes, *rest = clock.split(":")
    return (int(hours) - 8) * 3600 + int(minutes) * 60 + float(rest[0] if rest else 0)


def point_table(text: PolicyText, name: str, hold_s: int | None) -> PointTable:
    """Return the device of a point of the example with that point alone."""
    rule = next(rule for rule in text.point if rule.point == name)
    point = Point(
        id=rule.point,
        address=rule.address,
        type=rule.type,
        unit=rule.unit,
        scale=rule.scale,
        measurand=rule.measurand,
        state_model=rule.state_model,
    )
    return PointTable(
        device=rule.device,
        kind="test",
        points=(point,),
        integer=np.array([True]),
        modulus=(Decimal(0),),
        hold_ns=None if hold_s is None else hold_s * SECOND,
    )


def run_example(device: PointTable, samples: list[tuple[float, int]]) -> list[Block]:
    """Let time pass from 07:40 to past 09:00 and return what leaves."""
    clock = Clock(-1200)
    gate = Gate(compile_policy(example()), {device.device: device}, clock)
    moments = sorted([*((float(s), None) for s in range(-1200, 3603, 10)), *samples], key=first)
    for at, value in moments:
        clock.set(at)
        if value is None:
            gate.advance()
        else:
            gate.feed(
                Frame(
                    device=device.device,
                    columns=np.zeros(1, np.int32),
                    time=np.array([[T0 + round(at * SECOND)]], np.int64),
                    values=np.array([[value]], np.int64),
                    quality=np.full((1, 1), Quality.GOOD, np.uint8),
                )
            )
    clock.set(3602)
    gate.advance()
    return [block for blocks in gate.take().values() for block in blocks]


def first(moment: tuple[float, int | None]) -> float:
    return moment[0]


def cells(blocks: list[Block]) -> dict[tuple[int, int], tuple[int, int]]:
    """Return mantissa and span by point number and seconds from 08:00 to the slot's start."""
    found = {}
    for block in blocks:
        spans = block.span_matrix()
        for row, column in np.argwhere(block.quality != NO_VALUE).tolist():
            start = (block.slot + row) * 900 - T0 // SECOND
            cell = int(block.mantissa[row, column]), int(spans[row, column])
            found[int(block.numbers[column]), start] = cell
    return found


def test_the_meter_of_the_worked_example_leaves_as_the_page_says() -> None:
    page = text(POLICY)
    readings = [
        (seconds(at), int(Decimal(reading) * 100))
        for at, reading in table(page, "## 15. Worked example", "| time (UTC) | reading")
    ]
    device = point_table(example(), "energy", hold_s=3)
    found = cells(run_example(device, readings))
    rows = table(page, "## 15. Worked example", "| slot | mantissa ")
    said = {
        (1, int(seconds(slot))): (int(mantissa), int(span))
        for slot, mantissa, _, span, _ in rows
        if mantissa != "none"
    }
    assert found == said
    assert all(
        Decimal(value) == Decimal(mantissa).scaleb(-1)
        for _, mantissa, value, _, _ in rows
        if mantissa != "none"
    )


def test_the_press_of_the_worked_example_leaves_as_the_page_says() -> None:
    page = text(POLICY)
    changes = [
        (seconds(at), int(code))
        for at, code in table(page, "## 15. Worked example", "| time (UTC) | code")
    ]
    device = point_table(example(), "state", hold_s=None)
    found = cells(run_example(device, changes))
    rows = table(page, "## 15. Worked example", "| number | part ")
    assert [row[1] for row in rows] == list(STATE_PARTS)
    said = {int(number): int(value) for number, _, value, _ in rows}
    assert {number: found[number, 0][0] for number in said} == said
    assert sum(value for number, value in said.items() if number != 10) == 900
