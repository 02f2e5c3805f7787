"""`millgate agent points`: from agent.toml to a spreadsheet and back, and nothing else changes."""

import tomllib
from pathlib import Path

import pytest

from agent.config import read_config
from protocols.drivers import DeviceConfig
from security.cli import policy_app
from tests.mill_folder import call, make_mill, told

DEVICES = """
# Ours: the meter at the gate. 总表
[[device]]
id = "meter-1"          # do not rename
kind = "modbus"
host = "127.0.0.1"
# The points of meter-1.

[[device.points]]
id = "energy"   # kWh
address = "holding:0"
type = "uint32"
scale = 0.01
unit = "kWh"
measurand = "energy.active_import"

[device.points.counter]
on_reset = "rebase"

[[device.points]]
id = "power"
address = "holding:2"
type = "int32"
unit = "W"
measurand = "power.active"

# The second meter.
[[device]]
id = "meter-2"
kind = "modbus"
host = "127.0.0.2"

  [[device.points]]
  id = "energy"
  address = "input:0"
  type = "uint32"
# end of file
"""


def device(path: Path, name: str) -> DeviceConfig:
    return next(one for one in read_config(path).devices if one.id == name)


@pytest.mark.parametrize("headers", ["en", "zh"])
def test_points_go_to_a_spreadsheet_and_back_and_all_else_stays_as_it_was(
    tmp_path: Path, headers: str
) -> None:
    path = make_mill(tmp_path, DEVICES)
    before = path.read_text(encoding="utf-8")
    points = [device(path, name).points for name in ("meter-1", "meter-2")]
    out = tmp_path / "sheet.csv"
    assert (
        call("points", "export", path, "meter-1", "--out", out, "--headers", headers).exit_code == 0
    )
    done = call("points", "import", path, "meter-1", out)
    assert done.exit_code == 0, done.output
    after = path.read_text(encoding="utf-8")
    assert [device(path, name).points for name in ("meter-1", "meter-2")] == points
    removed = [line for line in before.splitlines() if line not in after.splitlines()]
    assert all("=" in line or line.startswith("[") for line in removed), removed
    for kept in ("# Ours: the meter at the gate. 总表", "# do not rename", "# The second meter."):
        assert kept in after
    assert after.endswith(DEVICES[DEVICES.index("# The second meter.") :])
    (first, _) = tomllib.loads(after)["device"]
    assert first["points"] == "meter-1.csv"


def test_a_table_is_put_in_place_of_the_one_before_with_its_notes(tmp_path: Path) -> None:
    path = make_mill(tmp_path, DEVICES)
    sheet = tmp_path / "new.csv"
    sheet.write_text("id,address,type,note\na,holding:1,int16,left door\n", encoding="utf-8")
    assert call("points", "import", path, "meter-2", sheet).exit_code == 0
    sheet.write_text("id,address,type,note\nb,holding:1,int16,right door\n", encoding="utf-8")
    assert call("points", "import", path, "meter-2", sheet).exit_code == 0
    assert [point.id for point in device(path, "meter-2").points] == ["b"]
    assert "right door" in (path.parent / "meter-2.csv").read_text(encoding="utf-8")


def test_a_table_with_a_fault_changes_nothing(tmp_path: Path) -> None:
    path = make_mill(tmp_path, DEVICES)
    before = path.read_bytes()
    sheet = tmp_path / "new.csv"
    sheet.write_text("id,address,type\na,holding:1,int61\n", encoding="utf-8")
    done = call("points", "import", path, "meter-1", sheet)
    assert "new.csv:2, column C (type)" in told(done)
    assert path.read_bytes() == before
    assert not (path.parent / "meter-1.csv").exists()


def test_a_file_that_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    path = make_mill(tmp_path, DEVICES)
    out = tmp_path / "sheet.csv"
    out.write_text("mine")
    assert "is there already" in told(call("points", "export", path, "meter-1", "--out", out))
    assert out.read_text() == "mine"
    (path.parent / "meter-1.csv").write_text("mine")
    sheet = tmp_path / "new.csv"
    sheet.write_text("id,address,type\na,holding:1,int16\n", encoding="utf-8")
    assert "is there already" in told(call("points", "import", path, "meter-1", sheet))
    assert (path.parent / "meter-1.csv").read_text() == "mine"


def test_points_written_as_one_line_are_left_to_people(tmp_path: Path) -> None:
    path = make_mill(
        tmp_path,
        '\n[[device]]\nid = "m"\nkind = "modbus"\nhost = "127.0.0.1"\n'
        'points = [{ id = "a", address = "holding:1", type = "int16" }]\n',
    )
    before = path.read_bytes()
    sheet = tmp_path / "new.csv"
    sheet.write_text("id,address,type\na,holding:1,int16\n", encoding="utf-8")
    assert call("points", "import", path, "m", sheet).exit_code != 0
    assert path.read_bytes() == before
    assert not (path.parent / "m.csv").exists()


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    path = make_mill(tmp_path, DEVICES)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    out = tmp_path / "sheet.csv"
    assert call("points", "export", path, "meter-1", "--out", out).exit_code == 0
    assert call("points", "import", path, "meter-1", out).exit_code == 0
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n")


def test_a_device_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = make_mill(tmp_path, DEVICES)
    for command in ("export", "import"):
        done = call("points", command, path, "meter-3", *([path] if command == "import" else []))
        assert (
            "no device 'meter-3' is configured — did you mean 'meter-2'? there are: meter-1, meter-2"
            in told(done)
        )


def test_a_policy_is_drafted_from_a_point_table(tmp_path: Path) -> None:
    path = make_mill(tmp_path, DEVICES)
    out = tmp_path / "sheet.csv"
    call("points", "export", path, "meter-1", "--out", out)
    call("points", "import", path, "meter-1", out)
    done = call("new", path, room=policy_app)
    assert done.exit_code == 0, done.output
    assert 'point = "power"' in (path.parent / "policy.toml").read_text(encoding="utf-8")
