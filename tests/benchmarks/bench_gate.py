"""What the gate costs: figures to read, nothing is asserted.

    python -m tests.benchmarks.bench_gate
    python -m tests.benchmarks.bench_gate --points 10000 --share 0.2 --seconds 120

A fifth of the points is released: of these, three in ten as the last value, two in ten as mean, lowest or
highest, four in ten as a counter's rise, the rest as states; a third of all but the states is carried as
float64. The mixed benches also clamp, wait and generalise. Withheld points count as input: looking at them
is the gate's work too.
"""

import argparse
import os
import time
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from protocols.frame import SECOND, Frame, Values
from protocols.points import Point, PointTable
from security.policy.compiled import CompiledPolicy, Rule, Terms
from security.policy.gate import Gate

T0 = 1_767_600_000 * SECOND
KINDS = ("last",) * 3 + ("statistic",) * 2 + ("delta",) * 4 + ("state",)
STATISTICS = ("mean", "min", "max")
MEASURANDS = {
    "last": "power.active",
    "statistic": "temperature",
    "delta": "energy.active_import",
    "state": "machine.state",
}
UNITS = {"last": "kW", "statistic": "degC", "delta": "kWh", "state": "1"}


class Clock:
    """A wall clock that is moved by hand."""

    def __init__(self) -> None:
        self.ns = T0

    def __call__(self) -> int:
        return self.ns


class Plant:
    """One device's points, which of them are released, and frames of their values."""

    def __init__(
        self,
        device: str,
        points: int,
        share: float,
        window_s: int,
        *,
        hold: bool = True,
        mixed: bool = False,
    ) -> None:
        rng = np.random.default_rng(points)
        kinds = rng.choice(KINDS, points)
        self.integer: NDArray[np.bool_] = (kinds == "state") | (rng.random(points) < 2 / 3)
        self.kinds = kinds
        every = max(round(1 / share), 1)
        chosen = range(0, points, every)
        self.table = PointTable(
            device=device,
            kind="modbus",
            points=tuple(_point(at, str(kind)) for at, kind in enumerate(kinds)),
            integer=self.integer,
            modulus=(Decimal(0),) * points,
            hold_ns=3 * SECOND if hold else None,
        )
        self.rules = [
            _rule(device, self.table.points[at], 1 + 9 * at, window_s, mixed=mixed) for at in chosen
        ]

    def frames(self, rows: int, seconds: int) -> Iterator[list[Frame]]:
        """Yield one frame of integers and one of floats at a time, `rows` a second."""
        rng = np.random.default_rng(7)
        groups = []
        for whole in (True, False):
            columns = np.flatnonzero(self.integer == whole).astype(np.int32)
            kind = np.int64 if whole else np.float64
            values = rng.integers(10**5, 10**6, len(columns)).astype(kind)
            groups.append((columns, values, self.kinds[columns] == "state"))
        for second in range(seconds):
            start = T0 + second * SECOND
            time_ns = start + np.arange(rows, dtype=np.int64)[:, None] * (SECOND // rows)
            made = []
            for columns, values, state in groups:
                steps = rng.integers(0, 5, (rows, len(columns))).astype(values.dtype)
                block: Values = values + np.cumsum(steps, axis=0)
                values[:] = block[-1]
                block[:, state] = 1 + (second // 60) % 3
                quality = np.zeros(block.shape, np.uint8)
                made.append(Frame(self.table.device, columns, time_ns, block, quality))
            yield made


def _point(at: int, kind: str) -> Point:
    return Point(
        id=f"p{at}",
        address=f"holding:{at}",
        type="int32",
        unit=UNITS[kind],
        measurand=MEASURANDS[kind],
        state_model="operating" if kind == "state" else None,
    )


def _rule(device: str, point: Point, number: int, window_s: int, *, mixed: bool) -> Rule:
    aggregate = next(kind for kind, name in MEASURANDS.items() if name == point.measurand)
    more: dict[str, object] = {}
    if aggregate == "statistic":
        aggregate = STATISTICS[number % len(STATISTICS)]
        more = {"min_samples": 2}
        if mixed and number % 2:
            more["bands"] = [200_000, 400_000, 600_000]
    if mixed and aggregate not in {"delta", "state"}:
        more |= {"clamp": [150_000, 800_000], "delay_s": 60 * (number % 2)}
    return Rule.model_validate(
        {
            **more,
            "device": device,
            "point": point.id,
            "address": point.address,
            "type": point.type,
            "unit": point.unit,
            "scale": "1",
            "offset": "0",
            "measurand": point.measurand,
            "state_model": point.state_model or "",
            "consumer": 0,
            "stream": window_s,
            "number": number,
            "equipment": "machine",
            "role": "",
            "aggregate": aggregate,
            "window_s": window_s,
            "exponent": 0,
            "step": 1,
            "class_raw": "general-2",
            "class_released": "general-1",
        }
    )


def _policy(rules: list[Rule]) -> CompiledPolicy:
    return CompiledPolicy(
        policy="mg-policy/1",
        version=1,
        previous=bytes(32),
        valid_from=0,
        valid_until=1 << 40,
        class_ceiling="general-2",
        consumers=[
            Terms(
                id="brain",
                encryption_key=bytes(32),
                receipt_key=bytes(32),
                purpose=1,
                right="",
                retention_days=30,
                pad=1024,
            )
        ],
        rules=rules,
    )


def bench(what: str, plants: list[Plant], rows: int, seconds: int) -> None:
    """Feed, advance, take and make memory as the agent does, and print what it cost."""
    clock = Clock()
    rules = [rule for plant in plants for rule in plant.rules]
    gate = Gate(_policy(rules), {plant.table.device: plant.table for plant in plants}, clock)
    spent = {"feed": 0.0, "advance": 0.0, "take + memory": 0.0}
    values = cells = 0
    for second, groups in enumerate(zip(*(p.frames(rows, seconds) for p in plants), strict=True)):
        clock.ns = T0 + (second + 1) * SECOND - 1
        before = time.process_time()
        for frames in groups:
            for frame in frames:
                gate.feed(frame)
                values += frame.values.size
        spent["feed"] += time.process_time() - before
        before = time.process_time()
        for _ in range(10):
            gate.advance()
        spent["advance"] += time.process_time() - before
        if gate.has_closed:
            before = time.process_time()
            streams = gate.take()
            gate.memory()
            spent["take + memory"] += time.process_time() - before
            cells += sum(block.mantissa.size for blocks in streams.values() for block in blocks)
    total = sum(spent.values())
    parts = ", ".join(f"{name} {cost / total:.0%}" for name, cost in spent.items())
    print(f"{what:<58} {values / total:>12,.0f} values per CPU-s  ({parts}; {cells:,} cells out)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.2, help="how many of them are released")
    parser.add_argument("--window", type=int, default=15, help="slot length in seconds")
    parser.add_argument("--seconds", type=int, default=120, help="of device time, per bench")
    args = parser.parse_args()
    os.environ.setdefault("MILLGATE_LANG", "en")

    def plants(devices: int, points: int, share: float, **how: bool) -> list[Plant]:
        return [Plant(f"d{at}", points, share, args.window, **how) for at in range(devices)]

    few = max(args.points // 100, 1)
    bench(
        f"1 device x {args.points:,} points, 1 row a second",
        plants(1, args.points, args.share),
        1,
        args.seconds,
    )
    bench(
        f"1 device x {args.points:,} points, mixed transforms, 1 row a second",
        plants(1, args.points, args.share, mixed=True),
        1,
        args.seconds,
    )
    bench(
        f"{few} devices x 100 points, 1 row a second",
        plants(few, 100, args.share),
        1,
        args.seconds,
    )
    bench("1 device x 125 points, 100 rows a second", plants(1, 125, args.share), 100, args.seconds)
    bench(
        "1 device x 125 points, all released, 100 rows a second",
        plants(1, 125, 1.0),
        100,
        args.seconds,
    )
    bench(
        "1 device x 125 points, all released, mixed, 100 rows a second",
        plants(1, 125, 1.0, mixed=True),
        100,
        args.seconds,
    )
    bench(
        f"1 device x {args.points:,} points, subscription, 1 row a second",
        plants(1, args.points, args.share, hold=False),
        1,
        args.seconds,
    )


if __name__ == "__main__":
    main()
