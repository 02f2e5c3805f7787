"""Faults as people meet them: what is wrong, where, and how to mend it."""

from collections.abc import Iterable

from protocols.language import counted, heard, tr


class MillgateError(Exception):
    """A fault that a person can act on.

    Args:
        what: what is wrong, without any raw value.
        where: file, key path or line, device, point; empty where there is none.
        remedy: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    @property
    def line(self) -> str:
        """The fault in one line, in both languages where it was made for everyone: to be kept."""
        place = f"{self.where}: " if self.where else ""
        mend = f" — {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{mend}"

    def __str__(self) -> str:
        return heard(self.line)


class ConfigError(MillgateError):
    """One or more faults in a file that a person wrote; each is one line."""

    exit_code = 2

    def __init__(self, faults: list[MillgateError]) -> None:
        super().__init__(
            tr(
                f"{counted(len(faults), 'fault')} in the configuration",
                f"配置中有 {len(faults)} 处错误",
            )
        )
        self.faults = faults

    @property
    def line(self) -> str:
        """One line for each fault; see `MillgateError`."""
        return "\n".join(fault.line for fault in self.faults)


class Misfit(ValueError):
    """What a validator says of a value that does not fit; `protocols.settings` makes it a fault.

    Args:
        what: what is wrong with it.
        remedy: what to write instead.
        keys: where it stands below the table or value that was validated.
    """

    def __init__(self, what: str, remedy: str = "", keys: tuple[str | int, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.keys = keys


class Misfits(ValueError):
    """Several of them, of a table that was validated as a whole."""

    def __init__(self, found: Iterable[Misfit]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(one.what for one in self.found))
