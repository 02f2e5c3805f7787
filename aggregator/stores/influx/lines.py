"""Line protocol, made a column at a time: one format per set of fields, filled row by row."""

from collections.abc import Sequence

import numpy as np

from aggregator.storable import FieldType, Table, present, text_array
from aggregator.stores import SeriesKey
from protocols.frame import Flags, Ints, Values

_IN_MEASUREMENT = str.maketrans({",": r"\,", " ": r"\ "})
_IN_NAME = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_IN_TEXT = str.maketrans({"\\": r"\\", '"': r"\""})


def heads(keys: Sequence[SeriesKey]) -> list[str]:
    """Return each series' measurement and tags as a line begins with them."""
    return [
        ",".join(
            [
                key.measurement.translate(_IN_MEASUREMENT),
                *(
                    f"{name.translate(_IN_NAME)}={word.translate(_IN_NAME)}"
                    for name, word in key.tags
                ),
            ]
        )
        for key in keys
    ]


def lines(table: Table, beginnings: Sequence[str], first: int, last: int) -> list[str]:
    """Return the lines of rows first to last (not included), one per row.

    Args:
        table: the rows.
        beginnings: what `heads` made of the table's series.
        first: position of the first row.
        last: position behind the last one.
    """
    rows = slice(first, last)
    starts = [beginnings[owner] for owner in table.owner[rows].tolist()]
    columns = {name: column[rows] for name, column in table.columns.items()}
    there = {name: present(table.types[name], column) for name, column in columns.items()}
    if all(has.all() for has in there.values()):
        return _format(table, list(columns), starts, columns, table.time[rows])
    found = [""] * len(starts)
    for where, names in _patterns(there):
        part = {name: columns[name][where] for name in names}
        numbers = where.tolist()
        some = [starts[number] for number in numbers]
        made = _format(table, names, some, part, table.time[rows][where])
        for number, line in zip(numbers, made, strict=True):
            found[number] = line
    return found


def _patterns(there: dict[str, Flags]) -> list[tuple[Ints, list[str]]]:
    """Return for each set of fields that rows have: which rows, and which fields."""
    names = list(there)
    has = np.stack(list(there.values()), axis=1)
    sets, which = np.unique(has, axis=0, return_inverse=True)
    which = which.reshape(-1)
    return [
        (np.flatnonzero(which == number), [name for name, at in zip(names, one, strict=True) if at])
        for number, one in enumerate(sets)
    ]


def _format(
    table: Table, names: Sequence[str], starts: list[str], columns: dict[str, Values], time: Ints
) -> list[str]:
    cells = [_cells(table.types[name], columns[name]) for name in names]
    slots = [f"{_spelled(name)}={slot}" for name, (slot, _) in zip(names, cells, strict=True)]
    template = f"%s {','.join(slots)} %d"
    filled = zip(starts, *(column for _, column in cells), time.tolist(), strict=True)
    return [template % row for row in filled]


def _spelled(name: str) -> str:
    return name.translate(_IN_NAME).replace("%", "%%")


def _cells(kind: FieldType, column: Values) -> tuple[str, list[object]]:
    """Return how a column's cells stand in a line's format, and the cells."""
    if kind is FieldType.INTEGER:
        return "%di", column.tolist()
    if kind is FieldType.TEXT:
        texts: list[str] = column.tolist()
        words = {text: text.translate(_IN_TEXT) for text in dict.fromkeys(texts)}
        return '"%s"', [words[text] for text in texts]
    # Released values are rounded, so they repeat, and writing a number out is what costs. They
    # are told apart by their bits: 0.0 and -0.0 are equal, and are written differently.
    bits, which = np.unique(column.view(np.int64), return_inverse=True)
    if len(bits) > len(column) // 2:
        return "%r", column.tolist()
    numbers = text_array([repr(number) for number in bits.view(np.float64).tolist()])
    return "%s", numbers[which].tolist()
