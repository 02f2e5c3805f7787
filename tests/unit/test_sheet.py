"""Tables on a terminal and in a pipe."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from protocols.sheet import Row, show_sheet, show_text

HEADINGS = ("设备", "link", "what leaves", "fault")
ROWS = [
    Row(["meter-1", "up", "energy.active_import, energy.reactive_import", ""]),
    Row(["压机一号", "down", "-", "192.168.1.20:502: 无法连接设备 — 请检查网络与电源"], "red"),
]


def shown(width: int, rows: list[Row] = ROWS, *, terminal: bool = True) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    show_sheet(HEADINGS, rows, title="Inside 厂内", console=console)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [200, 100, 80, 72, 50, 40])
def test_no_word_is_broken_and_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = shown(width)
    assert max(map(cell_len, lines)) <= width
    words = {word for row in ROWS for cell in row.cells for word in re.findall(r"[!-~]+", cell)}
    assert words <= {word for line in lines for word in re.findall(r"[!-~]+", line)}
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", [100, 80])
def test_columns_stand_below_each_other_also_beside_chinese(width: int) -> None:
    framed = [line for line in shown(width) if line.startswith(("┃", "│"))]
    assert framed
    assert len({cell_len(line) for line in framed}) == 1


def test_a_row_in_a_pipe_is_one_line_however_long_and_never_cut() -> None:
    lines = shown(40, [*ROWS, Row(["x" * 300, "a\nb", "", "y"])], terminal=False)
    assert len(lines) == 1 + 1 + 3
    for row in ROWS:
        (line,) = (line for line in lines if row.cells[0] in line)
        assert all(cell in line for cell in row.cells)
    assert "x" * 300 in lines[-1]
    assert "a b" in lines[-1]


@given(st.text(st.sampled_from("ab -，。（）电能量"), max_size=60), st.integers(2, 30))
def test_text_keeps_every_sign_that_is_no_space_in_order(text: str, width: int) -> None:
    out = io.StringIO()
    show_text(text, console=Console(file=out, width=width, force_terminal=True, color_system=None))
    assert "".join(out.getvalue().split()) == "".join(text.split())


def test_no_line_begins_with_a_chinese_comma() -> None:
    out = io.StringIO()
    console = Console(file=out, width=8, force_terminal=True, color_system=None)
    show_text("一二三四，五六七八。", console=console)
    assert not any(line.startswith(("，", "。")) for line in out.getvalue().splitlines())
