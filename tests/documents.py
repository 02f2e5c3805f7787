"""The documents as tests see them: blocks, tables and links."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^()\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")


def text(name: str) -> str:
    """Return a document, by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")


def all_documents() -> list[Path]:
    """Return every Markdown file of the project."""
    folders = [ROOT, ROOT / "requirements", *(p for p in (ROOT / "docs").rglob("") if p.is_dir())]
    return sorted({path for folder in folders for path in folder.glob("*.md")})


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language; "" is those that name none."""
    return [body for found, body in _FENCE.findall(page) if found == language]


def prose(page: str) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page)


def links(page: str) -> list[str]:
    """Return the targets of all links."""
    return _LINK.findall(prose(page))


def codes(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return _CODE.findall(cell)


def table(page: str, heading: str, header: str) -> list[list[str]]:
    """Return the rows of the first table under a heading whose header row starts so.

    Raises:
        ValueError: when there is no such table.
    """
    at = page.index(f"\n{heading}\n") if heading else 0
    at = page.index(f"\n{header}", at)
    lines = page[at + 1 :].splitlines()
    rows = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}
