"""What `policy new` suggests: commented lines that release a point once the officer uncomments them."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from protocols.drivers import DeviceConfig
from protocols.points import Point
from protocols.vocabulary.measurands import Kind
from security.policy.clauses import width
from security.policy.tools.deny import sounds_secret

_RELEASES: Final = {
    Kind.COUNTER: 'aggregate = "delta", slot = "15m", round = 1',
    Kind.STATE: 'aggregate = "state", slot = "15m", round = 1',
    Kind.GAUGE: 'aggregate = "mean", slot = "15m", round = 1, min_samples = 10',
}
_FINE: Final = {"power.factor": "0.01"}
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
    if point.measurand in _FINE:
        release = release.replace("round = 1", f"round = {_FINE[point.measurand]}")
    yield "# To release it, take the '# ' off these lines / 放行请删去以下各行的“# ”："
    yield f'# consumer = "{consumer}"'
    yield f"# number = {number}"
    yield f'# equipment = "{_label(device)}"'
    yield f"# release = {{ {release} }}"
    yield '# classes = { raw = "general-2", released = "general-1" }'


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
