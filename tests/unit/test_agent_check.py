"""`millgate agent check`: what it tells a firm about its officers."""

from pathlib import Path

import pytest

from security.keys import SigningKey
from tests.mill_folder import call, make_mill
from tests.small_factory import signing_key
from tests.unit.test_agent_points import DEVICES


@pytest.mark.parametrize(
    ("language", "alone"), [("en", "one officer alone can widen"), ("zh", "一名数据官即可单独放宽")]
)
def test_a_firm_with_one_officer_is_told_that_one_alone_can_widen_and_how_to_change_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, alone: str
) -> None:
    monkeypatch.setenv("MILLGATE_LANG", language)
    path = make_mill(tmp_path, DEVICES)
    done = call("check", path)
    assert done.exit_code == 0, done.output
    assert alone in done.output
    assert "widen_threshold = 2" in done.output

    second: SigningKey = signing_key("second")
    text = path.read_text(encoding="utf-8")
    both = text.replace("officers = [", f'officers = [\n    "{second.public.to_text()}",')
    path.write_text(both, encoding="utf-8")
    assert alone not in call("check", path).output
    # Who writes 1 all the same is told again.
    one = both.replace("threshold = 1", "threshold = 1\nwiden_threshold = 1")
    path.write_text(one, encoding="utf-8")
    assert alone in call("check", path).output
