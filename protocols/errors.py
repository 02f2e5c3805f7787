"""Faults as people meet them: what is wrong, where, and how to mend it."""

from protocols.language import tr


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

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f" — {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{mend}"


class ConfigError(MillgateError):
    """One or more faults in a file that a person wrote; each is one line."""

    exit_code = 2

    def __init__(self, faults: list[MillgateError]) -> None:
        super().__init__(
            tr(f"{len(faults)} fault(s) in the configuration", f"配置中有 {len(faults)} 处错误")
        )
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)
