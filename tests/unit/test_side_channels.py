"""The page about side channels names tests and files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "side-channels.md").read_text("utf-8")


def test_every_test_and_file_that_the_page_names_exists() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    known = set(re.findall(r"^(?:async )?def (test_\w+)", "\n".join(texts), re.MULTILINE))
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 12
    for _, _, _, code, test, _ in rows:
        assert set(re.findall(r"`(test_\w+)`", test)) <= known
        assert re.search(r"`test_\w+`", test)
        for path in re.findall(r"`([\w/]+\.py)`", code):
            assert (ROOT / path).is_file(), path
