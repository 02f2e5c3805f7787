"""Writes the test kit: `python -m tests.vectors.generate`. The same comes out every time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.vectors import (
    cases_cbor,
    cases_content,
    cases_log,
    cases_messages,
    cases_p256,
    cases_signed,
)
from tests.vectors.material import FOLDER, RANDOM

_LINE = 64


@dataclass
class Case:
    """One file to be.

    Attributes:
        reason: why it is refused; "-" when it is accepted.
    """

    kind: str
    name: str
    reason: str
    data: bytes
    terms: list[tuple[str, str]] = field(default_factory=list)

    def text(self) -> str:
        expect = "accept" if self.reason == "-" else "refuse"
        head = [("expect", expect), ("reason", self.reason), ("kind", self.kind)]
        lines = [f"{name}: {value}" for name, value in [*head, ("case", self.name), *self.terms]]
        hexed = self.data.hex()
        body = [hexed[at : at + _LINE] for at in range(0, len(hexed), _LINE)]
        return "\n".join([*lines, "", *body]) + "\n"


def cases() -> Iterator[Case]:
    for module in (cases_cbor, cases_content, cases_messages, cases_signed, cases_log, cases_p256):
        for kind, name, reason, data, terms in module.cases():
            yield Case(kind, name, reason, data, terms)


def files() -> dict[str, str]:
    """Return the text of every file by its name."""
    found = {}
    for number, case in enumerate(cases(), 1):
        words = "-".join("".join(c if c.isalnum() else " " for c in case.name.lower()).split())
        found[f"{number:03}-{case.kind}-{words}.txt"] = case.text()
    return found


def write(folder: Path) -> int:
    texts = files()
    for path in folder.glob("[0-9][0-9][0-9]-*.txt"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return len(texts)


if __name__ == "__main__":
    print(f"{write(FOLDER)} files, {RANDOM.write()} new random values")
