"""The truth file: what the plant really was and really served, for others to be judged by.

JSON lines. A header line each time the plant starts, all alike but for the time they were
written; then one line per meter reading served. Appended to by a restarted plant.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from protocols.errors import MillgateError
from protocols.frame import Flags, Ints
from protocols.language import tr
from simulators.plant import MACHINE, METER, Plant

KIND: Final = "millgate-truth/1"
ENERGY_AT: Final = 0
POWER_AT: Final = 2
"""Where the meter keeps its energy and its power, two registers each."""
_COLUMNS: Final = ("t", "first", "registers", "energy", "power")
_MOST_LINES_HELD: Final = 10_000


class TruthFile:
    """Appends to a truth file; lines are held until `flush`, at most 10,000 of them.

    Raises:
        MillgateError: when the file cannot be written, or belongs to another plant.
    """

    def __init__(self, path: Path, plant: Plant) -> None:
        self._path = path
        self._lines: list[str] = [_header(plant)]
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="truth")
        self._fault: OSError | None = None
        known = known_plant(path)
        if known is not None and known != plant:
            raise _foreign(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            _drop_torn_line(self._file)
        except OSError as error:
            raise _unusable(path, error) from error
        self.flush()

    def reading(self, t_ns: int, first: int, registers: int, energy: int, power: int) -> None:
        """Record that registers first … first + registers - 1 were served at t_ns."""
        self._lines.append(
            f'{{"t":{t_ns},"first":{first},"registers":{registers},'
            f'"energy":{energy},"power":{power}}}\n'
        )
        if len(self._lines) >= _MOST_LINES_HELD:
            self.flush()

    def flush(self) -> None:
        """Hand what is held to the writer's thread, which writes it in order.

        Raises:
            MillgateError: when an earlier write failed.
        """
        if self._fault is not None:
            raise _unusable(self._path, self._fault)
        lines, self._lines = self._lines, []
        if lines:
            self._writer.submit(self._write, "".join(lines).encode())

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self._fault = error

    def close(self) -> None:
        """Write what is held and close the file.

        Raises:
            MillgateError: when it cannot be written.
        """
        try:
            self.flush()
        finally:
            self._writer.shutdown(wait=True)
            os.close(self._file)
        if self._fault is not None:
            raise _unusable(self._path, self._fault)


def _header(plant: Plant) -> str:
    return (
        json.dumps(
            {
                "kind": KIND,
                "seed": plant.seed,
                "start_ns": plant.start_ns,
                "energy_start": plant.energy_start,
                "devices": {"meter": METER, "machine": MACHINE},
            }
        )
        + "\n"
    )


def _drop_torn_line(file: int) -> None:
    """A writer that was killed may have left a line without its end; nothing was lost before it."""
    size = os.fstat(file).st_size
    step = 4096
    end = size
    while end > 0:
        begin = max(0, end - step)
        newline = os.pread(file, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            end = begin + newline + 1
            break
        end = begin
    if end < size:
        os.ftruncate(file, end)


@dataclass(frozen=True, slots=True)
class Truth:
    """What a truth file says.

    Attributes:
        plant: the factory itself; a pure function, so it knows everything about the machine.
        time: shape (n,), when each reading of the meter was served, ascending.
        first, registers: shape (n,), which registers it served.
        energy: shape (n,), the energy register at that moment, 0.01 kWh.
        power: shape (n,), the power register at that moment, W.
    """

    plant: Plant
    time: Ints
    first: Ints
    registers: Ints
    energy: Ints
    power: Ints

    def serving(self, register: int) -> Flags:
        """Return shape (n,): which readings served both words that begin at a register."""
        return (self.first <= register) & (self.first + self.registers >= register + 2)


def known_plant(path: Path) -> Plant | None:
    """Return the plant that a truth file was written by; None where there is no file yet.

    Raises:
        MillgateError: when the file cannot be read or is no truth file.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(4096)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    return _plant(_parse(path, 1, line), path, 1) if line.endswith(b"\n") else None


def read_truth(path: Path) -> Truth:
    """Read a truth file; a torn last line is left out.

    Raises:
        MillgateError: when it is missing, damaged, or mixes plants.
    """
    plant: Plant | None = None
    rows: list[tuple[int, ...]] = []
    for number, entry in _entries(path):
        if "kind" not in entry:
            rows.append(_row(entry, path, number))
            continue
        found = _plant(entry, path, number)
        if plant not in (None, found):
            raise _foreign(path)
        plant = found
    if plant is None:
        raise _damaged(path, 1)
    columns = np.array(sorted(rows), np.int64).reshape(len(rows), len(_COLUMNS))
    return Truth(plant, *columns.T)


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield number, _parse(path, number, line)
    except OSError as error:
        raise _unusable(path, error) from error


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise _damaged(path, number) from error
    if not isinstance(entry, dict):
        raise _damaged(path, number)
    return entry


def _plant(entry: dict[str, Any], path: Path, number: int) -> Plant:
    try:
        if entry["kind"] != KIND:
            raise _damaged(path, number)
        return Plant(entry["seed"], entry["start_ns"], entry["energy_start"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, number) from error


def _row(entry: dict[str, Any], path: Path, number: int) -> tuple[int, ...]:
    values: tuple[Any, ...] = tuple(entry.get(name) for name in _COLUMNS)
    if len(entry) != len(_COLUMNS) or not all(type(value) is int for value in values):
        raise _damaged(path, number)
    return values


def _unusable(path: Path, error: OSError) -> MillgateError:
    return MillgateError(
        tr("the truth file cannot be used", "无法使用真值文件"),
        where=str(path),
        remedy=error.strerror or type(error).__name__,
    )


def _damaged(path: Path, number: int) -> MillgateError:
    return MillgateError(
        tr("this is not a line of a truth file", "此行不属于真值文件"),
        where=f"{path}:{number}",
        remedy=tr(
            "give a file written by 'millgate sim plant'", "请提供由 millgate sim plant 写出的文件"
        ),
    )


def _foreign(path: Path) -> MillgateError:
    return MillgateError(
        tr("the truth file belongs to another plant", "真值文件属于另一个工厂"),
        where=str(path),
        remedy=tr(
            "use the seed and start it names, or another file",
            "请使用其中的 seed 与 start，或另选文件",
        ),
    )
