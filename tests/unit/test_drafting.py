"""`policy new`: everything is withheld, and what it suggests is a policy that the lint lets pass."""

import re
import tomllib
from pathlib import Path

import pytest

from protocols.points import Point
from security.policy.compiler import compile_policy
from security.policy.language import read_policy
from security.policy.tools.drafting import suggestion
from security.policy.tools.findings import Severity
from security.policy.tools.lint import Subject, lint
from tests.unit.test_policy_history import DEVICE, Mill, run

POINTS = """
[[device.points]]
id = "power"
address = "holding:2"
type = "float32"
unit = "kW"
measurand = "power.active"

[[device.points]]
id = "factor"
address = "holding:4"
type = "float32"
measurand = "power.factor"

[[device.points]]
id = "state"
address = "holding:6"
type = "uint16"
measurand = "machine.state"
state_model = "operating"

[[device.points]]
id = "after-state"
address = "holding:8"
type = "uint32"
unit = "kWh"
measurand = "energy.active_export"

[[device.points]]
id = "furnace-setpoint"
address = "holding:10"
type = "float32"
unit = "degC"
measurand = "temperature"
"""


def draft(tmp_path: Path) -> Path:
    from security.cli import policy_app  # noqa: PLC0415 - the command under test

    mill = Mill(tmp_path)
    written = mill.agent.read_text("utf-8").replace(DEVICE, DEVICE + POINTS)
    mill.agent.write_text(written, encoding="utf-8")
    mill.text.unlink()
    run(policy_app, "new", mill.agent)
    return mill.text


def test_a_new_policy_withholds_everything(tmp_path: Path) -> None:
    text = read_policy(draft(tmp_path))
    assert len(text.point) == 6
    assert compile_policy(text).leaving == []


def test_every_suggestion_can_be_taken_as_it_is(tmp_path: Path) -> None:
    path = draft(tmp_path)
    written = path.read_text("utf-8")
    taken = re.sub(r"(?m)^# (?=(consumer|number|equipment|release|classes) = )", "", written)
    taken = re.sub(r"(?m)^# (?=(\[\[secret\]\]|point = |what = ))", "", taken)
    path.write_text(taken, encoding="utf-8")
    text = read_policy(path)
    policy = compile_policy(text)
    assert [one.source for one in policy.leaving] == [
        f"meter-1/{name}" for name in ("energy", "power", "factor", "state", "after-state")
    ]
    assert [one.point for one in policy.secrets] == ["meter-1/furnace-setpoint"]
    assert policy.leaving[-1].number == 13
    findings = lint(Subject.of(policy, text))
    assert [one for one in findings if one.severity is Severity.ERROR] == []


@pytest.mark.parametrize(
    ("measurand", "unit", "step", "note"),
    [
        ("power.active", "W", "0.1", "0.1 kW = 100 W"),
        ("power.active", "kW", "1", "1 kW "),
        ("energy.active_import", "MWh", "1", "1 kWh = 0.001 MWh"),
        ("pressure", "kPa", "0.1", "0.1 bar = 10 kPa"),
        ("machine.state", "1", "1", "1 s "),
        ("power.factor", "1", "0.01", ""),
    ],
)
def test_a_suggested_step_says_in_which_unit_it_counts(
    measurand: str, unit: str, step: str, note: str
) -> None:
    model = "operating" if measurand == "machine.state" else None
    point = Point(id="x", address="a", type="t", unit=unit, measurand=measurand, state_model=model)
    line = next(one for one in suggestion("d", point, "b", 1) if "release =" in one)
    assert f"round = {step}" in line
    assert note in line
    assert ("round 单位为" in line) == bool(note)


def test_the_examples_in_the_head_are_valid_toml(tmp_path: Path) -> None:
    head = draft(tmp_path).read_text("utf-8").split("policy = ")[0]
    examples = [line[4:] for line in head.splitlines() if line.startswith("#   release = ")]
    assert len(examples) == 6
    for example in examples:
        assert "release" in tomllib.loads(example)
