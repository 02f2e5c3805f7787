"""The test kit: every file gives the reason that it states, and the generator gives the files."""

import collections
from pathlib import Path

import pytest

from tests.vectors.generate import files
from tests.vectors.material import FOLDER
from tests.vectors.run import ACCEPTED, outcome, read

PATHS = sorted(FOLDER.glob("[0-9][0-9][0-9]-*.txt"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_vector_gives_its_reason(path: Path) -> None:
    vector = read(path)
    assert outcome(vector) == vector.text("reason")
    assert vector.text("expect") == ("accept" if vector.text("reason") == ACCEPTED else "refuse")


def test_the_files_are_those_that_the_generator_writes() -> None:
    texts = files()
    assert sorted(texts) == [path.name for path in PATHS]
    for path in PATHS:
        assert path.read_text("utf-8") == texts[path.name], path.name


def test_the_kit_is_large_and_names_no_case_twice() -> None:
    vectors = [read(path) for path in PATHS]
    assert len(vectors) >= 150
    names = collections.Counter((v.text("kind"), v.text("case")) for v in vectors)
    assert set(names.values()) == {1}
    for kind in {v.text("kind") for v in vectors}:
        reasons = {v.text("reason") for v in vectors if v.text("kind") == kind}
        assert ACCEPTED in reasons
        assert len(reasons) > 1


def test_a_vector_with_another_reason_would_be_noticed() -> None:
    vector = read(next(path for path in PATHS if "message-a-batch.txt" in path.name))
    assert outcome(vector) == ACCEPTED
    vector.terms["opening"] = [bytes(32).hex()]
    assert outcome(vector) == "cannot_open"
