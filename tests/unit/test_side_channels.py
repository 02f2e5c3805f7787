"""The pages about side channels and threats name tests and files that exist."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
THREATS: Final = 48


def rows_of(name: str) -> list[list[str]]:
    """Return the cells of all table rows whose last cell is for tests."""
    lines = (DOCS / name).read_text("utf-8").splitlines()
    start = max(at for at, line in enumerate(lines) if line.startswith("|---"))
    rows = [line for line in lines[start + 1 :] if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in rows]


@pytest.fixture(scope="module")
def known() -> set[str]:
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    return set(re.findall(r"^(?:async )?def (test_\w+)", "\n".join(texts), re.MULTILINE))


def named_in(cell: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", cell)


def test_every_test_and_file_that_the_page_of_side_channels_names_exists(known: set[str]) -> None:
    rows = rows_of("side-channels.md")
    assert len(rows) > 12
    for _, _, code, test in rows:
        assert named_in(test)
        assert set(named_in(test)) <= known
        for path in re.findall(r"`([\w/]+\.py)`", code):
            assert (ROOT / path).is_file(), path


def test_every_threat_has_a_test_that_exists_or_says_why_not(known: set[str]) -> None:
    rows = rows_of("threat-model.md")
    assert [int(row[0]) for row in rows] == list(range(1, THREATS + 1))
    for number, *_, test in rows:
        assert named_in(test) or test.startswith("not tested: "), number
        assert set(named_in(test)) <= known, number


def test_every_rule_of_failing_closed_names_tests_that_exist_in_both_languages(
    known: set[str],
) -> None:
    rules = []
    for name, heading in (
        ("threat-model.md", "Fail closed"),
        ("threat-model.zh-CN.md", "失效即关闭"),
    ):
        section = (DOCS / name).read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
        rows = [
            line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")
        ]
        rules.append([(row[0], named_in(row[-1])) for row in rows[1:]])
    assert rules[0] == rules[1]
    assert {number for number, _ in rules[0]} == set("12345678")
    for _, tests in rules[0]:
        assert tests
        assert set(tests) <= known


def test_both_languages_name_the_same_tests_for_the_same_threats() -> None:
    english, chinese = rows_of("threat-model.md"), rows_of("threat-model.zh-CN.md")
    assert [(row[0], named_in(row[-1])) for row in english] == [
        (row[0], named_in(row[-1])) for row in chinese
    ]
