"""What each consumer is told of a policy: its release sheet, made of the compiled rules alone."""

from protocols.vocabulary.elements import figure_of
from protocols.vocabulary.measurands import MEASURANDS, Kind
from security.policy.compiled import (
    STATE_PARTS,
    CompiledPolicy,
    Derivation,
    ReleaseSheet,
    Rule,
    SheetPoint,
    SheetStream,
    content_hash,
    to_bytes,
)
from security.policy.streams import stream_id


def release_sheets(policy: CompiledPolicy) -> list[ReleaseSheet]:
    """Return the release sheet of each consumer, in the policy's order."""
    policy_hash = content_hash(to_bytes(policy))
    return [_sheet(policy, policy_hash, at) for at in range(len(policy.consumers))]


def _sheet(policy: CompiledPolicy, policy_hash: bytes, at: int) -> ReleaseSheet:
    terms = policy.consumers[at]
    leaving = [] if policy.stopped else [one for one in policy.leaving if one.consumer == at]
    windows = sorted({one.window_s for one in leaving})
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
        points=[point for one in leaving for point in _sheet_points(one)],
    )


def _sheet_points(one: Rule | Derivation) -> list[SheetPoint]:
    if isinstance(one, Derivation):
        standard = MEASURANDS[figure_of(one.formula)]
        return [_sheet_point(one, standard.name, standard.unit)]
    measurand = MEASURANDS[one.measurand]
    unit = one.unit if measurand.kind is Kind.OTHER else measurand.unit
    if one.aggregate != "state":
        return [_sheet_point(one, one.measurand, unit)]
    return [_state_point(one, offset, part) for offset, part in enumerate(STATE_PARTS)]


def _sheet_point(one: Rule | Derivation, measurand: str, unit: str) -> SheetPoint:
    shift = one.clamp_exponent - one.exponent
    pseudonym_s = one.pseudonym_s if isinstance(one, Rule) else 0
    return SheetPoint(
        number=one.number,
        stream=one.stream,
        measurand=measurand,
        part="",
        unit=unit,
        # A pseudonym is no quantity: it lies on no grid.
        exponent=0 if pseudonym_s else one.exponent,
        step=1 if pseudonym_s else one.step,
        aggregate="derived" if isinstance(one, Derivation) else one.aggregate,
        equipment=one.equipment,
        role=one.role,
        # With bands, what leaves is a band's number: the clamp has no meaning on its grid.
        clamp=[] if one.bands else [bound * 10**shift for bound in one.clamp],
        bands=one.bands,
        bands_exponent=one.bands_exponent,
        delay_s=one.delay_s,
        fill_within_s=one.fill_within_s if isinstance(one, Rule) else 0,
        pseudonym_s=pseudonym_s,
        retention_days=one.retention_days,
    )


def _state_point(rule: Rule, offset: int, part: str) -> SheetPoint:
    code = part == "end"
    return SheetPoint(
        number=rule.number + offset,
        stream=rule.stream,
        measurand=rule.measurand,
        part=part,
        unit=MEASURANDS[rule.measurand].unit if code else "s",
        exponent=0 if code else rule.exponent,
        step=1 if code else rule.step,
        aggregate=rule.aggregate,
        equipment=rule.equipment,
        role=rule.role,
        delay_s=rule.delay_s,
        retention_days=rule.retention_days,
    )
