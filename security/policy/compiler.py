"""From the officer's text to the compiled policy and one release sheet per consumer.

The same text always gives the same bytes.
"""

import hashlib

from protocols import strict_cbor
from protocols.frame import SECOND
from protocols.vocabulary.measurands import MEASURANDS, Kind
from protocols.vocabulary.purposes import PURPOSES
from security.envelope import HASH_BYTES
from security.policy.compiled import (
    STATE_PARTS,
    CompiledPolicy,
    ReleaseSheet,
    Rule,
    SheetPoint,
    SheetStream,
    Terms,
    content_hash,
    to_bytes,
)
from security.policy.language import Consumer, PointRule, PolicyText, grid_of


def stream_id(consumer_key: bytes, window_s: int) -> int:
    """Return the opaque number of a consumer's stream; window 0 is its stream of sheets.

    It depends on nothing else, so that a chain goes on when the policy changes.
    """
    digest = hashlib.sha256(strict_cbor.encode(["mg1/stream", consumer_key, window_s])).digest()
    return int.from_bytes(digest[:6], "big")


def compile_policy(text: PolicyText) -> CompiledPolicy:
    """Return the compiled form of a policy that passed its own validation."""
    consumers = {consumer.id: at for at, consumer in enumerate(text.consumer)}
    terms = [_terms(consumer) for consumer in text.consumer]
    rules = [_rule(rule, consumers, terms) for rule in text.released()]
    return CompiledPolicy(
        policy=text.policy,
        version=text.version,
        previous=_pin_bytes(text.previous) if text.previous else bytes(HASH_BYTES),
        valid_from=int(text.valid_from.timestamp()),
        valid_until=int(text.valid_until.timestamp()),
        class_ceiling=text.class_ceiling,
        consumers=terms,
        rules=sorted(rules, key=lambda rule: rule.number),
    )


def release_sheets(policy: CompiledPolicy) -> list[ReleaseSheet]:
    """Return the release sheet of each consumer, in the policy's order."""
    policy_hash = content_hash(to_bytes(policy))
    return [_sheet(policy, policy_hash, at) for at in range(len(policy.consumers))]


def _terms(consumer: Consumer) -> Terms:
    return Terms(
        id=consumer.id,
        encryption_key=_pin_bytes(consumer.encryption_key),
        receipt_key=_pin_bytes(consumer.receipt_key),
        purpose=PURPOSES[consumer.purpose],
        right=consumer.right,
        retention_days=consumer.retention_days,
        pad=consumer.pad,
    )


def _pin_bytes(pin: str) -> bytes:
    return bytes.fromhex(pin.removeprefix("sha256:"))


def _rule(rule: PointRule, consumers: dict[str, int], terms: list[Terms]) -> Rule:
    if rule.release is None or rule.consumer is None or rule.classes is None:
        raise ValueError("only a complete release is compiled")
    at = consumers[rule.consumer]
    window_s = rule.release.slot // SECOND
    exponent, step = grid_of(rule.release.round)
    return Rule(
        device=rule.device,
        point=rule.point,
        address=rule.address,
        type=rule.type,
        unit=rule.unit,
        scale=format(rule.scale.normalize(), "f"),
        offset=format(rule.offset.normalize(), "f"),
        measurand=rule.measurand,
        state_model=rule.state_model or "",
        consumer=at,
        stream=stream_id(terms[at].encryption_key, window_s),
        number=rule.number or 0,
        equipment=rule.equipment or "",
        role=rule.role,
        aggregate=rule.release.aggregate,
        window_s=window_s,
        exponent=exponent,
        step=step,
        class_raw=rule.classes.raw,
        class_released=rule.classes.released,
    )


def _sheet(policy: CompiledPolicy, policy_hash: bytes, at: int) -> ReleaseSheet:
    terms = policy.consumers[at]
    rules = [rule for rule in policy.rules if rule.consumer == at]
    windows = sorted({rule.window_s for rule in rules})
    return ReleaseSheet(
        sheet="mg-sheet/1",
        policy_version=policy.version,
        policy_hash=policy_hash,
        valid_from=policy.valid_from,
        valid_until=policy.valid_until,
        consumer=terms.encryption_key,
        purpose=terms.purpose,
        right=terms.right,
        retention_days=terms.retention_days,
        streams=[
            SheetStream(id=stream_id(terms.encryption_key, w), window_s=w, pad=terms.pad)
            for w in windows
        ],
        points=[point for rule in rules for point in _sheet_points(rule)],
    )


def _sheet_points(rule: Rule) -> list[SheetPoint]:
    parts = STATE_PARTS if rule.aggregate == "state" else ("",)
    return [_sheet_point(rule, offset, part) for offset, part in enumerate(parts)]


def _sheet_point(rule: Rule, offset: int, part: str) -> SheetPoint:
    measurand = MEASURANDS[rule.measurand]
    code = part == "end"
    unit = "s" if part and not code else measurand.unit
    if measurand.kind is Kind.OTHER:
        unit = rule.unit
    return SheetPoint(
        number=rule.number + offset,
        stream=rule.stream,
        measurand=rule.measurand,
        part=part,
        unit=unit,
        exponent=0 if code else rule.exponent,
        step=1 if code else rule.step,
        aggregate=rule.aggregate,
        equipment=rule.equipment,
        role=rule.role,
    )
