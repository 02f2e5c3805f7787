"""The vocabulary as JSON, for other systems, and as the tables of docs/vocabulary.md."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Final

from protocols.vocabulary import kpi
from protocols.vocabulary.measurands import CONVERSIONS, MEASURANDS, MEDIA, VERSION
from protocols.vocabulary.purposes import PURPOSES
from protocols.vocabulary.states import (
    STATE_FILES,
    STATE_MODELS,
    TIME_ELEMENTS,
    TIMES_SOURCE,
    OperatingState,
)

FORMAT: Final = "millgate-vocabulary/1"


def as_document() -> dict[str, Any]:
    """Return the whole vocabulary as plain JSON types."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "media": [asdict(medium) for medium in MEDIA.values()],
        "measurands": [asdict(measurand) for measurand in MEASURANDS.values()],
        "conversions": [
            {"from": source, "to": target, "factor": format(factor, "f")}
            for (source, target), factor in CONVERSIONS.items()
        ],
        "operating_states": {state.name.lower(): int(state) for state in OperatingState},
        "state_models": {
            name: {
                "en": file.title_en,
                "zh": file.title_zh,
                "source": file.source,
                "codes": {str(code): state.name.lower() for code, state in codes.items()},
            }
            for (name, codes), file in zip(STATE_MODELS.items(), STATE_FILES.values(), strict=True)
        },
        "time_elements": {
            "source": TIMES_SOURCE,
            "elements": {state.name.lower(): str(e) for state, e in TIME_ELEMENTS.items()},
        },
        "formulas": {
            name: {"formula": one.text, "inputs": one.inputs, "en": one.en, "zh": one.zh}
            for name, one in kpi.FORMULAS.items()
        },
        "purposes": PURPOSES,
    }


def as_json() -> str:
    """Return the vocabulary as JSON text that ends with a line feed."""
    return json.dumps(as_document(), ensure_ascii=False, indent=1) + "\n"


def digest() -> str:
    """Return the hash by which a store names the vocabulary, SHA-256 in hex."""
    return hashlib.sha256(as_json().encode()).hexdigest()


def tables() -> dict[str, str]:
    """Return the tables of docs/vocabulary.md in Markdown, by the heading each stands under."""
    return {
        "measurands": _table(
            ("name", "unit", "kind", "medium", "scope", "OPC", "meaning", "含义"),
            (
                (f"`{m.name}`", m.unit, m.kind, m.medium, m.scope or "", m.opc, m.en, m.zh)
                for m in MEASURANDS.values()
            ),
        ),
        "media": _table(
            ("name", "OPC 40001-4", "meaning", "含义"),
            ((f"`{m.name}`", "yes" if m.opc else "", m.en, m.zh) for m in MEDIA.values()),
        ),
        "units": _table(
            ("from", "to", "multiply by"),
            ((source, target, format(f, "f")) for (source, target), f in CONVERSIONS.items()),
        ),
        "states": _table(("state", "code", *STATE_MODELS, "ISO 22400-2"), _state_rows()),
        "formulas": _table(
            ("name", "formula", "meaning", "含义"),
            ((f"`{name}`", f"`{one.text}`", one.en, one.zh) for name, one in kpi.FORMULAS.items()),
        ),
    }


def _state_rows() -> Iterator[tuple[object, ...]]:
    for state in OperatingState:
        codes = [
            ", ".join(str(code) for code, found in model.items() if found is state)
            for model in STATE_MODELS.values()
        ]
        yield (state.name.lower(), int(state), *codes, TIME_ELEMENTS.get(state, ""))


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [tuple(head)]
    lines += [tuple(str(cell) for cell in row) for row in rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(1, "|" + "---|" * len(lines[0]))
    return "\n".join(text)


def fill(page: str) -> str:
    """Return a Markdown page with each table between its marks, `<!-- name -->` and `<!-- end -->`."""
    for name, table in tables().items():
        before, mark, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if mark and end:
            page = f"{before}{mark}{table}\n{end}{after}"
    return page
