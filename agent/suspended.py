"""What is suspended until a person has looked, and acknowledged it.

That is a stream whose gate failed twice in a day, and a point whose readings were not what was
signed for three slots in a row. What is suspended leaves as slots without value, as if it were
missing: nobody outside can tell. The list is a file of the gate side, so that a restart acknowledges
nothing.
"""

import fcntl
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from agent.config import AgentConfig
from protocols.batch import NO_VALUE, Block
from protocols.errors import MillgateError
from protocols.language import tr
from security.files import write_whole
from security.policy.compiled import Rule

DAY_S: Final = 86400


@dataclass(slots=True)
class Suspended:
    """What is suspended, by name.

    Attributes:
        streams: since when (seconds since 1970 UTC), by stream.
        points: the same, by `device/point`.
        faults: when each stream's gate failed last.
    """

    streams: dict[int, int] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    faults: dict[int, int] = field(default_factory=dict)

    def fault(self, stream: int, now_s: int) -> bool:
        """Note a fault in a stream's gate; tell whether the stream is suspended by it."""
        before = self.faults.get(stream)
        self.faults[stream] = now_s
        # A clock that was set back makes no fault older.
        again = before is not None and now_s - before < DAY_S
        if again and stream not in self.streams:
            self.streams[stream] = now_s
            return True
        return False

    def strange(self, names: Iterable[str], now_s: int) -> list[str]:
        """Suspend points; return those that were not yet."""
        new = [name for name in names if name not in self.points]
        self.points |= dict.fromkeys(new, now_s)
        return new

    def acknowledge(self, name: str) -> bool:
        """Take a point, or `stream N`, off the list; tell whether it was on it."""
        if name in self.points:
            del self.points[name]
            return True
        stream = next((one for one in self.streams if name == stream_name(one)), None)
        if stream is None:
            return False
        del self.streams[stream]
        self.faults.pop(stream, None)
        return True

    def names(self) -> list[str]:
        """Return everything that is suspended, as a person names it."""
        return [*map(stream_name, sorted(self.streams)), *sorted(self.points)]


def stream_name(stream: int) -> str:
    """Return how a person names a stream."""
    return f"stream-{stream}"


def suspended_path(config: AgentConfig) -> Path:
    """Return where an agent keeps its list."""
    return config.spool.folder / "gate" / "suspended.json"


class Keeper:
    """The list in its file; a running agent and a person's command change it in turn.

    Attributes:
        now: the list as it was read last.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the list; without a path it is kept in memory only.

        Raises:
            MillgateError: when it is damaged; taken for empty, it would release what was suspended.
        """
        self.now = Suspended() if path is None else _read(path)
        self._path = path

    def refresh(self) -> None:
        """Read the list again, since somebody may have acknowledged something."""
        if self._path is not None:
            self.now = _read(self._path)

    def note(self, faults: Iterable[int], strange: Iterable[str], now_s: int) -> list[str]:
        """Note faults and strange points; return what is newly suspended, as a person names it."""

        def change(suspended: Suspended) -> list[str]:
            streams = [one for one in faults if suspended.fault(one, now_s)]
            return [*map(stream_name, streams), *suspended.strange(strange, now_s)]

        return self._change(change)

    def acknowledge(self, names: Iterable[str]) -> list[str]:
        """Take names off the list; return those that were on it."""
        return self._change(lambda suspended: [one for one in names if suspended.acknowledge(one)])

    def _change(self, change: Callable[[Suspended], list[str]]) -> list[str]:
        if self._path is None:
            return change(self.now)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.with_name(f".{self._path.name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            suspended = _read(self._path)
            found = change(suspended)
            _write(self._path, suspended)
            self.now = suspended
        return found


def _read(path: Path) -> Suspended:
    try:
        found = json.loads(path.read_bytes())
        streams, faults = (_by_stream(found[name]) for name in ("streams", "faults"))
        points = {str(name): int(at) for name, at in found["points"].items()}
    except FileNotFoundError:
        return Suspended()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise MillgateError(
            tr("the list of what is suspended is damaged", "挂起清单已损坏"),
            where=str(path),
            remedy=tr("look at every point, then remove the file", "请检查各点后删除该文件"),
        ) from None
    return Suspended(streams, points, faults)


def _by_stream(found: Mapping[str, Any]) -> dict[int, int]:
    return {int(stream): int(at) for stream, at in found.items()}


def _write(path: Path, suspended: Suspended) -> None:
    write_whole(path, json.dumps(asdict(suspended), indent=1).encode())


def without(
    streams: dict[int, list[Block]], suspended: Suspended, rules: Sequence[Rule]
) -> dict[int, list[Block]]:
    """Return the blocks with every value of what is suspended taken out.

    Args:
        streams: what is to be handed over.
        suspended: the list.
        rules: what leaves, with its numbers on the wire.
    """
    if not (suspended.streams or suspended.points):
        return streams
    numbers = [
        number
        for rule in rules
        if f"{rule.device}/{rule.point}" in suspended.points
        for number in range(rule.number, rule.number + rule.width)
    ]
    hidden = np.array(numbers, np.int64)
    return {
        stream: [_blank(block, hidden, everything=stream in suspended.streams) for block in blocks]
        for stream, blocks in streams.items()
    }


def _blank(
    block: Block, hidden: "np.ndarray[Any, np.dtype[np.int64]]", *, everything: bool
) -> Block:
    gone = np.isin(block.numbers, hidden) | everything
    if not gone.any():
        return block
    kept_spans = ~gone[block.span_cells % len(block.numbers)]
    return replace(
        block,
        mantissa=np.where(gone, 0, block.mantissa),
        quality=np.where(gone, np.uint8(NO_VALUE), block.quality),
        span_cells=block.span_cells[kept_spans],
        spans=block.spans[kept_spans],
    )
