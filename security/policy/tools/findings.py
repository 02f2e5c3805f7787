"""What the lint finds: where, what, and how to mend it."""

from dataclasses import dataclass
from enum import IntEnum

from protocols.language import tr


class Severity(IntEnum):
    """How bad a finding is; an error keeps the policy from being signed."""

    NOTE = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        """Its name for people."""
        return {
            Severity.NOTE: tr("note", "提示"),
            Severity.WARNING: tr("warning", "警告"),
            Severity.ERROR: tr("ERROR", "错误"),
        }[self]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        rule: fixed word that names the rule, such as `derivable`.
        place: key path in the policy, such as ("secret", 0); empty for the whole.
        what, remedy: for people.
    """

    rule: str
    severity: Severity
    place: tuple[str | int, ...]
    what: str
    remedy: str = ""


def key_text(place: tuple[str | int, ...]) -> str:
    """Return a key path as people count: point[3].release."""
    words = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in place)
    return words.removeprefix(".")
