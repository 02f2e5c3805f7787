"""Where the officer's tools read from: a policy as text or signed, the devices, and the past."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from protocols.drivers import DeviceConfig, read_devices
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.points import PointTable
from protocols.settings import parse_duration, read_toml
from security.policy.compiled import CompiledPolicy
from security.policy.tools.csv_past import read_csv_past
from security.policy.tools.live import read_now
from security.policy.tools.past import Past
from security.policy.tools.shelf import compile_text, read_bundle_file


def read_policy(path: Path) -> CompiledPolicy:
    """Read a policy as it is written (`.toml`) or signed; signatures are not looked at.

    Raises:
        MillgateError: when it is neither.
    """
    if path.suffix == ".toml":
        return compile_text(path)[1]
    return read_bundle_file(path)[1].policy


def agent_beside(policy: Path, given: Path | None) -> Path:
    """Return the agent.toml that was named, or the one beside the policy."""
    return given or policy.with_name("agent.toml")


def tables_beside(policy: Path, given: Path | None) -> dict[str, PointTable] | None:
    """Return the configured points by device; None where no agent.toml with any is given or beside it.

    Raises:
        ConfigError: when agent.toml cannot be read.
    """
    agent = agent_beside(policy, given)
    if given is None and not agent.exists():
        return None
    return {device.id: device.table() for device in devices_of(agent)} or None


def devices_of(agent: Path) -> list[DeviceConfig]:
    """Return the devices that agent.toml describes.

    Raises:
        ConfigError: when it cannot be read.
    """
    return read_devices(read_toml(agent).get("device", []), agent)


def read_past(devices: Sequence[DeviceConfig], history: Path | None, live: str | None) -> Past:
    """Read the past from where the officer says.

    Raises:
        MillgateError: when neither or both are given, or it cannot be read.
    """
    if (history is None) == (live is None):
        raise MillgateError(
            tr("which past is to be used?", "使用哪些数据？"),
            remedy=tr(
                "give --history FILE.csv, or --live 2m to read the devices now",
                "请用 --history 文件.csv 指定历史数据，或用 --live 2m 现在读取设备",
            ),
        )
    if history is not None:
        return read_csv_past(history, devices)
    try:
        span_ns = parse_duration(live)
    except ValueError as error:
        raise MillgateError(str(error), where="--live") from None
    return asyncio.run(read_now(devices, span_ns))
