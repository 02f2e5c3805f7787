"""Reads a changed configuration for the supervisor, in a process of its own that then ends.

So the supervisor stays small, and the sealed side's part of `agent.toml` is never in the gate side's
hands. What is faulty is told and changes nothing.
"""

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.authority import usable_policy
from agent.config import AgentConfig, for_sealed_side, no_devices, read_config, read_sealed
from agent.registry import Registry
from protocols.errors import ConfigError, MillgateError
from protocols.language import speak_to_everyone, tr
from security.policy.bundle import NoPolicy, PolicyEnded

MOST_BYTES: Final = 1 << 20
"""Of the sealed side's settings, and of an answer of this process."""


def changed_settings(path: Path, old: AgentConfig) -> bytes:
    """Return the sealed side's part of a changed `agent.toml`.

    Args:
        old: what the sealed side runs with.

    Raises:
        ConfigError: with every fault; the old configuration goes on then.
    """
    config = read_config(path)
    problem = no_devices(config) or unchangeable(old, config)
    if problem is not None:
        raise ConfigError([problem])
    if (config.policy, config.consumers) != (old.policy, old.consumers):
        _check_policy(config)
    return for_sealed_side(path)


def unchangeable(old: AgentConfig, new: AgentConfig) -> MillgateError | None:
    """Return a fault where something has changed that takes effect only at a start."""
    if (old.identity, old.spool.folder) == (new.identity, new.spool.folder):
        return None
    return MillgateError(
        tr(
            "[identity] and [spool] folder cannot change while the agent runs",
            "[identity] 与 [spool] folder 不能在运行中更改",
        ),
        where=str(new.path),
        remedy=tr("restart the agent", "请重新启动代理程序"),
    )


def _check_policy(config: AgentConfig) -> None:
    """Refuse terms under which the signed policy that there is could not be enforced any more."""
    registry = Registry(config.spool.folder / "registry.json")
    try:
        # One that has ended enforces nothing, so it cannot stand in the way of other terms.
        with contextlib.suppress(PolicyEnded):
            usable_policy(config, registry)
    except NoPolicy as fault:
        raise ConfigError([fault]) from None
    finally:
        registry.close()


def main(arguments: Sequence[str]) -> int:
    """Answer into one inherited file what another one and `agent.toml` say; see `Supervisor`."""
    path, given, answer = arguments
    speak_to_everyone()
    settings = os.pread(int(given), MOST_BYTES, 0)
    try:
        found = {"settings": changed_settings(Path(path), read_sealed(settings)).decode()}
    except ConfigError as error:
        found = {"faults": error.line}
    os.write(int(answer), json.dumps(found).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
