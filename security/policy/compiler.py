"""From the officer's text to the compiled policy and one release sheet per consumer.

The same text, after the same version before, always gives the same bytes.
"""

from decimal import Decimal
from typing import Any, Final

from protocols.errors import ConfigError, MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.vocabulary.purposes import PURPOSES
from security.envelope import HASH_BYTES
from security.policy.clauses import (
    Also,
    Consumer,
    Derive,
    Grid,
    Outlet,
    PointRule,
    Relation,
    Release,
    SecretPoint,
    bands_grid,
    grid_of,
)
from security.policy.compiled import (
    CompiledPolicy,
    Derivation,
    Input,
    KnownRelation,
    ReleaseSheet,
    Retired,
    Rule,
    SecretSource,
    Terms,
    content_hash,
    owner_of,
    to_bytes,
)
from security.policy.language import PolicyText
from security.policy.sheets import release_sheets
from security.policy.streams import stream_id
from security.policy.succession import number_faults

MOST_ITEMS: Final = 1_000_000
"""How many keys and values a policy or a sheet may have, so that it can be read again."""


def compile_policy(text: PolicyText, previous: CompiledPolicy | None = None) -> CompiledPolicy:
    """Return the compiled form of a policy that passed its own validation.

    Args:
        text: the policy.
        previous: the version before; from it come the numbers that must not be used again.

    Raises:
        ConfigError: when the text is not a successor of `previous`, or too large.
    """
    consumers = {consumer.id: at for at, consumer in enumerate(text.consumer)}
    terms = [_terms(consumer) for consumer in text.consumer]
    points = {rule.name: rule for rule in text.point}
    rules = [
        _rule(point, outlet, release, consumers, terms)
        for point in text.point
        for outlet, release in point.outlets()
    ]
    derived = [_derivation(one, points, consumers, terms) for one in text.derive]
    stopped = {rule.name for rule in text.point if rule.stop}
    stopped |= {one.name for one in text.derive if one.stop}
    policy = CompiledPolicy(
        policy=text.policy,
        version=text.version,
        previous=_pin_bytes(text.previous) if text.previous else bytes(HASH_BYTES),
        valid_from=int(text.valid_from.timestamp()),
        valid_until=int(text.valid_until.timestamp()),
        class_ceiling=text.class_ceiling,
        consumers=terms,
        rules=sorted((r for r in rules if r.source not in stopped), key=lambda one: one.number),
        minimum_agent=text.minimum_agent,
        stopped=int(text.stop),
        derived=sorted((d for d in derived if d.source not in stopped), key=lambda one: one.number),
        secrets=sorted(map(_secret, text.secret), key=lambda one: one.point),
        relations=sorted(map(_relation, text.relation), key=lambda one: one.name),
        retired=_retired([*rules, *derived], stopped, previous),
    )
    _check(policy, text, previous)
    return policy


def _check(policy: CompiledPolicy, text: PolicyText, previous: CompiledPolicy | None) -> None:
    faults = [] if previous is None else [*_order_faults(policy, previous)]
    faults += [] if previous is None else number_faults(previous, policy)
    contents: list[CompiledPolicy | ReleaseSheet] = [policy, *release_sheets(policy)]
    if max(_items(one.model_dump(exclude_defaults=True)) for one in contents) > MOST_ITEMS:
        faults.append(
            tr(
                "too much is released, with too many transforms; use a second agent",
                "放行的点及其变换过多；请使用第二个代理程序",
            )
        )
    if faults:
        raise ConfigError([MillgateError(what) for what in faults])


def _order_faults(policy: CompiledPolicy, previous: CompiledPolicy) -> list[str]:
    faults = []
    hashed = content_hash(to_bytes(previous))
    if policy.previous != hashed:
        faults.append(
            tr(
                f'previous is not the hash of version {previous.version}; write previous = "sha256:'
                f'{hashed.hex()}"',
                f'previous 不是版本 {previous.version} 的哈希；请写 previous = "sha256:{hashed.hex()}"',
            )
        )
    if policy.version <= previous.version:
        faults.append(
            tr(
                f"version is not above {previous.version}, the version before",
                f"version 须大于前一版本 {previous.version}",
            )
        )
    return faults


def _items(content: Any) -> int:
    if isinstance(content, dict):
        return 1 + sum(1 + _items(value) for value in content.values())
    if isinstance(content, list):
        return 1 + sum(map(_items, content))
    return 1


def _retired(
    all_of_text: list[Rule | Derivation], stopped: set[str], previous: CompiledPolicy | None
) -> list[Retired]:
    """Return the numbers whose owners do not leave now, among them those of the versions before."""
    kept: dict[int, Retired] = {one.number: one for one in (previous.retired if previous else [])}
    for one in [*(previous.leaving if previous else []), *all_of_text]:
        known = kept.get(one.number)
        widest = max(one.width, known.width if known else 0)
        kept[one.number] = Retired(number=one.number, width=widest, owner=owner_of(one))
    in_use = {
        number
        for one in all_of_text
        if one.source not in stopped
        for number in range(one.number, one.number + one.width)
    }
    return [
        one
        for number, one in sorted(kept.items())
        if not in_use.issuperset(range(number, number + one.width))
    ]


def _terms(consumer: Consumer) -> Terms:
    budget = consumer.budget
    return Terms(
        id=consumer.id,
        encryption_key=_pin_bytes(consumer.encryption_key),
        receipt_key=_pin_bytes(consumer.receipt_key),
        purpose=PURPOSES[consumer.purpose],
        right=consumer.right,
        retention_days=consumer.retention_days,
        pad=consumer.pad,
        budget_points=budget.points or 0,
        budget_rows=budget.rows or 0,
        budget_bytes=budget.bytes or 0,
    )


def _pin_bytes(pin: str) -> bytes:
    return bytes.fromhex(pin.removeprefix("sha256:"))


def _plain(value: Decimal) -> str:
    """Return the one decimal text of a value."""
    return format(value.normalize(), "f")


def _leaving(
    outlet: Outlet, grid: Grid, consumers: dict[str, int], terms: list[Terms]
) -> dict[str, Any]:
    """Return the fields that all that leaves has in common."""
    if outlet.consumer is None or outlet.classes is None or outlet.classes.released is None:
        raise ValueError("only a complete release is compiled")
    at = consumers[outlet.consumer]
    window_s = grid.slot // SECOND
    exponent, step = grid_of(grid.round) if grid.round is not None else (0, 1)
    clamp_exponent, clamp = bands_grid(grid.clamp or ())
    bands_exponent, bands = bands_grid(grid.bands)
    return {
        "consumer": at,
        "stream": stream_id(terms[at].encryption_key, window_s),
        "number": outlet.number or 0,
        "equipment": outlet.equipment or "",
        "role": outlet.role,
        "window_s": window_s,
        "exponent": exponent,
        "step": step,
        "class_raw": outlet.classes.raw,
        "class_released": outlet.classes.released,
        "class_reason": outlet.classes.reason,
        "clamp": clamp,
        "clamp_exponent": clamp_exponent,
        "bands": bands,
        "bands_exponent": bands_exponent,
        "delay_s": grid.delay // SECOND,
        "retention_days": outlet.retention_days or 0,
    }


def _source(point: PointRule) -> dict[str, Any]:
    return {
        "device": point.device,
        "point": point.point,
        "address": point.address,
        "type": point.type,
        "unit": point.unit,
        "scale": _plain(point.scale),
        "offset": _plain(point.offset),
        "measurand": point.measurand,
        "state_model": point.state_model or "",
        "origin": point.origin,
        "range": [_plain(bound) for bound in point.range or ()],
    }


def _rule(
    point: PointRule,
    outlet: PointRule | Also | Outlet,
    release: Release,
    consumers: dict[str, int],
    terms: list[Terms],
) -> Rule:
    return Rule(
        **_leaving(outlet, release, consumers, terms),
        **_source(point),
        aggregate=release.aggregate,
        min_samples=release.min_samples,
        fill_within_s=release.fill_within // SECOND,
        pseudonym_s=(release.pseudonymise or 0) // SECOND,
    )


def _derivation(
    one: Derive, points: dict[str, PointRule], consumers: dict[str, int], terms: list[Terms]
) -> Derivation:
    return Derivation(
        **_leaving(one, one.release, consumers, terms),
        name=one.name,
        formula=one.formula,
        inputs=[
            Input(name=name, **_source(points[source]))
            for name, source in sorted(one.inputs.items())
        ],
        constants={name: _plain(value) for name, value in one.constants.items()},
    )


def _secret(one: SecretPoint) -> SecretSource:
    return SecretSource(
        point=one.point, what=one.what, protect=_plain(one.protect), canary=int(one.canary)
    )


def _relation(one: Relation) -> KnownRelation:
    terms = sorted(one.zero, key=lambda term: term[1])
    return KnownRelation(
        name=one.name,
        factors=[_plain(factor) for factor, _ in terms],
        points=[point for _, point in terms],
    )
