"""What tests of the gate are made of: points, rules, a clock, frames, and what came out."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import numpy as np

from protocols.batch import NO_VALUE, Block
from protocols.frame import SECOND, Frame, Quality, Values
from protocols.points import Counter, Point, PointTable
from protocols.vocabulary.measurands import MEASURANDS, Kind
from security.policy.clauses import grid_of
from security.policy.compiled import CompiledPolicy, Derivation, Input, Rule, Terms
from security.policy.gate import Gate
from security.policy.streams import stream_id
from security.secret import Secret

T0_S = 1_767_600_000
"""A whole day since 1970, so that every slot length fits."""
T0 = T0_S * SECOND
KEY = b"\x11" * 32
GATE_KEY = b"\x22" * 32
HOLD = 3 * SECOND

Cell = tuple[int, int, int]
"""mantissa, quality, over how many slots it counts"""
Released = dict[tuple[int, int], Cell]
"""By (point number, slots since T0): what was released there; cells without value are left out."""


class Clock:
    """A wall clock that is moved by hand; `s` is seconds since T0."""

    def __init__(self, s: float = 0) -> None:
        self.ns = T0 + round(s * SECOND)

    def __call__(self) -> int:
        return self.ns

    def set(self, s: float) -> None:
        self.ns = T0 + round(s * SECOND)


def counter(name: str, *, rollover: int | None = None, on_reset: str = "from_zero") -> Point:
    behaviour = Counter.model_validate({"rollover": rollover, "on_reset": on_reset})
    return point(name, "energy.active_import", counter=behaviour)


def point(
    name: str,
    measurand: str,
    *,
    unit: str | None = None,
    scale: str = "1",
    offset: str = "0",
    counter: Counter | None = None,
) -> Point:
    standard = MEASURANDS[measurand]
    return Point(
        id=name,
        address=f"holding:{name}",
        type="int32",
        unit=unit or standard.unit,
        measurand=measurand,
        scale=Decimal(scale),
        offset=Decimal(offset),
        counter=counter or Counter(),
        state_model="operating" if standard.kind is Kind.STATE else None,
    )


def table(
    points: Sequence[Point],
    *,
    device: str = "dev",
    real: Iterable[str] = (),
    hold_ns: int | None = HOLD,
    brings_time: bool = False,
) -> PointTable:
    """Return a point table; the points named in `real` are carried as float64."""
    whole = np.array([p.id not in set(real) for p in points])
    return PointTable(
        device=device,
        kind="test",
        points=tuple(points),
        integer=whole,
        modulus=tuple(
            (p.counter.rollover or Decimal(0)).scaleb(-p.grid_exponent() if at else 0)
            for p, at in zip(points, whole.tolist(), strict=True)
        ),
        hold_ns=hold_ns,
        brings_time=brings_time,
    )


def rule(
    owner: PointTable,
    name: str,
    number: int,
    *,
    window_s: int = 10,
    step: str = "1",
    aggregate: str | None = None,
    **changes: object,
) -> Rule:
    """Return the rule that releases a point exactly as it is configured."""
    source = next(p for p in owner.points if p.id == name)
    by_kind = {Kind.COUNTER: "delta", Kind.STATE: "state"}
    exponent, whole_step = grid_of(Decimal(step))
    fields: dict[str, object] = {
        "device": owner.device,
        "point": name,
        "address": source.address,
        "type": source.type,
        "unit": source.unit,
        "scale": format(source.scale.normalize(), "f"),
        "offset": format(source.offset.normalize(), "f"),
        "measurand": source.measurand,
        "state_model": source.state_model or "",
        "consumer": 0,
        "stream": stream_id(KEY, window_s),
        "number": number,
        "equipment": "machine",
        "role": "",
        "aggregate": aggregate or by_kind.get(source.standard.kind, "last"),
        "window_s": window_s,
        "exponent": exponent,
        "step": whole_step,
        "class_raw": "general-2",
        "class_released": "general-1",
    }
    return Rule.model_validate({**fields, **changes})


def policy(
    rules: Sequence[Rule],
    *,
    valid_from: int = 0,
    valid_until: int = 1 << 40,
    derived: Sequence[Derivation] = (),
    **budget: int,
) -> CompiledPolicy:
    terms = Terms(
        id="brain",
        encryption_key=KEY,
        receipt_key=KEY,
        purpose=1,
        right="",
        retention_days=30,
        pad=1024,
        **budget,
    )
    return CompiledPolicy(
        policy="mg-policy/1",
        version=1,
        previous=bytes(32),
        valid_from=valid_from,
        valid_until=valid_until,
        class_ceiling="general-2",
        consumers=[terms],
        rules=sorted(rules, key=lambda one: one.number),
        derived=sorted(derived, key=lambda one: one.number),
    )


def gate_of(
    tables: PointTable | Sequence[PointTable],
    rules: Sequence[Rule],
    clock: Clock,
    derived: Sequence[Derivation] = (),
    **budget: int,
) -> Gate:
    owners = [tables] if isinstance(tables, PointTable) else tables
    by_device = {owner.device: owner for owner in owners}
    return Gate(policy(rules, derived=derived, **budget), by_device, clock, Secret(GATE_KEY))


def derivation(
    owner: PointTable,
    formula: str,
    inputs: Mapping[str, str],
    number: int,
    *,
    window_s: int = 10,
    step: str = "0.01",
    **changes: object,
) -> Derivation:
    """Return the derivation of points of one device by a formula; PRU is 2 s."""
    exponent, whole_step = grid_of(Decimal(step))
    sources = {name: rule(owner, point_name, 1).model_dump() for name, point_name in inputs.items()}
    fields: dict[str, object] = {
        "name": f"{formula}-{number}",
        "formula": formula,
        "inputs": [
            {"name": name, **{key: source[key] for key in Input.model_fields if key in source}}
            for name, source in sorted(sources.items())
        ],
        "constants": {"pru": "2"} if formula in {"oee", "effectiveness"} else {},
        "consumer": 0,
        "stream": stream_id(KEY, window_s),
        "number": number,
        "equipment": "machine",
        "role": "",
        "window_s": window_s,
        "exponent": exponent,
        "step": whole_step,
        "class_raw": "general-2",
        "class_released": "general-1",
    }
    return Derivation.model_validate({**fields, **changes})


def frame(
    owner: PointTable,
    at_s: float | Sequence[float],
    values: Mapping[str, object],
    *,
    quality: int | Mapping[str, int] = Quality.GOOD,
    clock_s: float | None = None,
) -> Frame:
    """Return a frame of one or more moments; a point's values are one number or one per moment."""
    moments = [at_s] if isinstance(at_s, int | float) else list(at_s)
    names = [p.id for p in owner.points]
    columns = np.array([names.index(name) for name in values], np.int32)
    whole = bool(owner.integer[columns[0]])
    cells = [np.broadcast_to(np.asarray(v), len(moments)) for v in values.values()]
    codes = (
        [quality] * len(columns)
        if isinstance(quality, int)
        else [quality.get(name, Quality.GOOD) for name in values]
    )
    carried: Values = np.stack(cells, axis=1).astype(np.int64 if whole else np.float64)
    return Frame(
        device=owner.device,
        columns=columns,
        time=np.array([[T0 + round(s * SECOND)] for s in moments], np.int64),
        values=carried,
        quality=np.broadcast_to(np.array(codes, np.uint8), (len(moments), len(columns))).copy(),
        clock=None if clock_s is None else T0 + round(clock_s * SECOND),
    )


def cells_of(streams: Mapping[int, Sequence[Block]], window_s: int = 10) -> Released:
    """Return what was released in slots of one length; a cell that is given twice is a failure."""
    found: Released = {}
    first = T0_S // window_s
    for block in streams.get(stream_id(KEY, window_s), []):
        spans = block.span_matrix()
        for row, column in np.argwhere(block.quality != NO_VALUE).tolist():
            place = int(block.numbers[column]), block.slot + row - first
            assert place not in found, "a slot was released twice"
            found[place] = (
                int(block.mantissa[row, column]),
                int(block.quality[row, column]),
                int(spans[row, column]),
            )
    return found
