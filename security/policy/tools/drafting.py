"""What `policy new` suggests: commented lines that release a point once the officer uncomments them."""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from protocols.drivers import DeviceConfig
from protocols.points import Point
from protocols.vocabulary.measurands import Kind, unit_factor
from security.policy.clauses import width
from security.policy.tools.deny import sounds_secret

_RELEASES: Final = {
    Kind.COUNTER: 'aggregate = "delta", slot = "15m", round = {:f}',
    Kind.STATE: 'aggregate = "state", slot = "15m", round = {:f}',
    Kind.GAUGE: 'aggregate = "mean", slot = "15m", round = {:f}, min_samples = 10',
}
_FINE: Final = {"power.factor": Decimal("0.01"), "pressure": Decimal("0.1")}
_COARSEST: Final = Decimal(1)
_OF_THE_DEVICE: Final = 100
_NOT_LABEL: Final = re.compile(r"[^a-z0-9-]+")


def suggestion(device: str, point: Point, consumer: str, number: int) -> Iterator[str]:
    """Yield commented lines that would release a point; a warning where its name sounds secret."""
    word = sounds_secret(f"{point.id} {point.address}")
    release = _RELEASES.get(point.standard.kind)
    if word:
        yield (
            f"# '{word}': usually a trade secret; better withheld, and declared as [[secret]] below"
            f" / 名称含“{word}”，多属商业秘密，建议不放行并在文末声明为 [[secret]]"
        )
        return
    if release is None:
        return
    yield "# To release it, take the '# ' off these lines / 放行请删去以下各行的“# ”："
    yield f'# consumer = "{consumer}"'
    yield f"# number = {number}"
    yield f'# equipment = "{_label(device)}"'
    step = _step(point)
    yield f"# release = {{ {release.format(step)} }}{_unit_note(point, step)}"
    yield '# classes = { raw = "general-2", released = "general-1" }'


def _step(point: Point) -> Decimal:
    """Return a step in the unit that leaves: a hundred of the device's own, where that is finer."""
    factor = unit_factor(point.unit, point.standard)
    if point.standard.kind is Kind.STATE or factor is None:
        return _COARSEST
    ten = Decimal(1).scaleb((_OF_THE_DEVICE * factor).adjusted())
    return min(ten, _FINE.get(point.measurand, _COARSEST))


def _unit_note(point: Point, step: Decimal) -> str:
    """Return the remark in which unit `round` counts, which need not be the device's."""
    unit = "s" if point.standard.kind is Kind.STATE else point.standard.unit
    factor = unit_factor(point.unit, point.standard)
    if unit == "1":
        return ""
    own = ""
    if factor is not None and factor != 1:
        own = f" = {(step / factor).normalize():f} {point.unit}"
    return f"   # round: {step:f} {unit}{own} / round 单位为 {unit}"


def numbers_of(point: Point) -> int:
    """Return how many numbers a point would take."""
    return width("state" if point.standard.kind is Kind.STATE else "last")


def secrets_text(devices: Sequence[DeviceConfig]) -> str:
    """Return commented [[secret]] tables for all points whose names sound secret."""
    names = [
        f"{device.id}/{point.id}"
        for device in devices
        for point in device.table().points
        if sounds_secret(f"{point.id} {point.address}")
    ]
    return "".join(f'# [[secret]]\n# point = "{name}"\n# what = ""\n\n' for name in names)


def _label(device: str) -> str:
    return _NOT_LABEL.sub("-", device.lower()).strip("-")[:32] or "machine"
