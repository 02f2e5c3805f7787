"""Tables on the terminal: as wide as it is, broken between words only; one line a row where nobody looks.

Where a program reads along (no terminal), a row is one line, however long, so that `grep` finds what
belongs together. Where the columns do not fit side by side without a word being broken, each row is
shown as a list of its cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import HEAVY_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

_FRAME: Final = 3
_NARROWEST: Final = 10
_OPENING: Final = frozenset("（《“‘【([{")
_CLOSING: Final = frozenset("，。、；：！？）》”’】")
_IDEOGRAPHS: Final = (0x2E80, 0xFFE6)


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        cells: its texts; a line feed begins a new line of the cell.
        style: of all of it.
        styles: of single cells, by position.
    """

    cells: Sequence[str]
    style: StyleType = ""
    styles: Sequence[StyleType] = ()

    def style_of(self, at: int) -> StyleType:
        """Return the style of the cell at a position."""
        return (self.styles[at] if at < len(self.styles) else "") or self.style


def show_sheet(
    headings: Sequence[str],
    rows: Sequence[Row],
    *,
    title: str = "",
    caption: str = "",
    framed: bool = True,
    console: Console | None = None,
) -> None:
    """Print a table.

    Args:
        headings: of the columns; all empty for none.
        rows: as many cells each as there are headings.
        title, caption: lines before and after it; empty for none.
        framed: whether it has lines between its columns.
        console: where to; the terminal by default.
    """
    console = console or Console()
    if title:
        _line(console, title, "bold")
    if not console.is_terminal:
        _plain(console, headings, rows)
    else:
        room = console.width - _FRAME * len(headings) - 1
        widths = _widths([headings, *(row.cells for row in rows)], room)
        if widths is None:
            _stacked(console, headings, rows)
        else:
            _beside(console, headings, rows, widths, framed=framed)
    if caption:
        _line(console, caption, "dim")


def screen() -> Console:
    """Return the terminal; what is printed where none is, stays on one line."""
    console = Console()
    console.soft_wrap = not console.is_terminal
    return console


def show_text(text: str, style: StyleType = "", *, console: Console | None = None) -> None:
    """Print a text as it is, broken between words where a terminal is too narrow."""
    console = console or Console()
    for line in text.split("\n"):
        _line(console, line, style)


def _line(console: Console, text: str, style: StyleType) -> None:
    indent = text[: len(text) - len(text.lstrip(" "))]
    rest = text[len(indent) :]
    lines = _broken(rest, console.width - len(indent)) if console.is_terminal else [rest]
    for line in lines:
        _put(console, Text(f"{indent}{line}", style))


def _put(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True, highlight=False)


def _plain(console: Console, headings: Sequence[str], rows: Sequence[Row]) -> None:
    """Print one line a row, columns below each other."""
    lines = [row.cells for row in rows]
    if any(headings):
        lines.insert(0, headings)
    flat = [[" ".join(cell.split()) for cell in line] for line in lines]
    widths = [max(map(cell_len, column)) for column in zip(*flat, strict=True)]
    for line in flat:
        cells = (
            f"{cell}{' ' * (width - cell_len(cell))}"
            for cell, width in zip(line, widths, strict=True)
        )
        _put(console, Text("  ".join(cells).rstrip()))


def _beside(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Row],
    widths: Sequence[int],
    *,
    framed: bool,
) -> None:
    box = HEAVY_HEAD if framed else None
    table = Table(show_header=any(headings), box=box, pad_edge=framed)
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(_cell(heading, width, ""), width=width, no_wrap=True)
    for row in rows:
        cells = [
            _cell(cell, width, row.style_of(at))
            for at, (cell, width) in enumerate(zip(row.cells, widths, strict=True))
        ]
        table.add_row(*cells)
    console.print(table)


def _cell(text: str, width: int, style: StyleType) -> Text:
    return Text("\n".join(_lines(text, width)), style)


def _stacked(console: Console, headings: Sequence[str], rows: Sequence[Row]) -> None:
    """Print each row as a list of its cells that say something."""
    widest = max(map(cell_len, headings), default=0)
    for row in rows:
        mark = "─ "
        for at, (heading, cell) in enumerate(zip(headings, row.cells, strict=True)):
            head = f"{mark}{heading}{' ' * (widest - cell_len(heading))}  "
            for part in _lines(cell, max(console.width - cell_len(head), 1)) if cell else []:
                text = Text(head, "dim")
                text.append(part, row.style_of(at))
                _put(console, text)
                head, mark = " " * cell_len(head), "  "


def _lines(cell: str, width: int) -> list[str]:
    return [part for line in cell.split("\n") for part in _broken(line, width)]


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Return how wide each column is to be; None where they do not fit without breaking a word."""
    columns = list(zip(*lines, strict=True))
    parts = [[part for cell in column for part in cell.split("\n")] for column in columns]
    least = [
        max((cell_len(word.rstrip()) for part in column for word in _words(part)), default=0)
        for column in parts
    ]
    most = [max(map(cell_len, column), default=0) for column in parts]
    # A column of ideographs may be broken anywhere, but nobody reads one downwards.
    least = [max(low, min(high, _NARROWEST)) for low, high in zip(least, most, strict=True)]
    if sum(most) <= room:
        return most
    if sum(least) > room:
        return None
    for cap in range(max(most), 0, -1):
        widths = [max(low, min(high, cap)) for low, high in zip(least, most, strict=True)]
        if sum(widths) <= room:
            return widths
    return least


def _broken(text: str, width: int) -> list[str]:
    """Return a line as lines of this width; only a word that is wider itself is longer."""
    if cell_len(text) <= width:
        return [text.rstrip()]
    lines, line = [], ""
    for word in _words(text):
        if line and cell_len((line + word).rstrip()) > width:
            lines.append(line.rstrip())
            line = word
        else:
            line += word
    return [*lines, line.rstrip()]


def _words(text: str) -> Iterator[str]:
    """Yield what may not be broken: words with the spaces behind them, and single ideographs."""
    word = ""
    for sign in text:
        if word and _may_break(word[-1], sign):
            yield word
            word = ""
        word += sign
    if word:
        yield word


def _may_break(before: str, after: str) -> bool:
    if before.isspace():
        return not after.isspace()
    if after in _CLOSING or before in _OPENING or after.isspace():
        return False
    return _is_wide(before) or _is_wide(after)


def _is_wide(sign: str) -> bool:
    low, high = _IDEOGRAPHS
    return low <= ord(sign) <= high
