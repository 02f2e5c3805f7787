"""The house rules, held by machine: import contract, types, style."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_room_imports_one_above_it() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(500)
def test_types_are_strict_everywhere() -> None:
    run("mypy")


def test_style_is_clean_and_formatted() -> None:
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")


def test_tasks_are_born_in_task_groups_only() -> None:
    born = re.compile(r"asyncio\.(create_task|ensure_future)\(|loop\.create_task\(")
    found = [
        path.relative_to(ROOT)
        for room in ("protocols", "security", "agent", "aggregator", "simulators")
        for path in (ROOT / room).rglob("*.py")
        if born.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []
