"""Prometheus' text format 0.0.4."""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Sample: TypeAlias = tuple[Mapping[str, str], float | int | None]
"""Labels, and a value; None where it is not known."""

Family: TypeAlias = tuple[str, str, str, Iterable[Sample]]
"""Name without `millgate_`, `gauge` or `counter`, what it is, and its samples."""


def exposition(families: Iterable[Family]) -> str:
    """Return metrics as text; what is not known has no sample."""
    return "".join(_family(*family) for family in families)


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> str:
    full = f"millgate_{name}"
    lines = [f"# HELP {full} {about}", f"# TYPE {full} {kind}"]
    for labels, value in samples:
        if value is not None:
            lines.append(f"{full}{_labels(labels)} {float(value):.17g}")
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
