"""Diff, explain, sign and their like, as the officer meets them on the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from protocols.errors import ConfigError
from security.cli import policy_app
from security.keys import SigningKey, create_key_file
from security.policy.bundle import peek_bundle
from security.policy.tools.diff import as_text, compare
from security.policy.tools.explain import explain
from security.policy.tools.shelf import find_previous, read_bundle_file, shelf
from tests.unit.lint_material import PINS, point, policy, release, text
from tests.unit.test_lint import derived

POLICY = """\
policy = "mg-policy/1"
version = 1
valid_from = 2026-01-01T00:00:00Z
valid_until = 2036-01-01T00:00:00Z

[[consumer]]
id = "brain"
encryption_key = "{pin}"
receipt_key = "{pin}"
purpose = "carbon-emission"
retention_days = 365
budget = {{ rows = 10000 }}

[[point]]
device = "main"
point = "energy"
address = "holding:0"
type = "uint32"
unit = "kWh"
measurand = "energy.active_import"
consumer = "brain"
number = 1
equipment = "main-meter"
release = {{ aggregate = "delta", slot = "15m", round = 1 }}
classes = {{ raw = "general-2", released = "general-1" }}

[[point]]
device = "line"
point = "energy"
address = "holding:0"
type = "uint32"
unit = "kWh"
measurand = "energy.active_import"

[[point]]
device = "press"
point = "energy"
address = "holding:0"
type = "uint32"
unit = "kWh"
measurand = "energy.active_import"

[[secret]]
point = "press/energy"
what = "what the press uses"

[[relation]]
name = "hall"
zero = [[1, "main/energy"], [-1, "line/energy"], [-1, "press/energy"]]
""".format(pin=PINS[0])

LINE = """\
consumer = "brain"
number = 2
equipment = "line-meter"
release = { aggregate = "delta", slot = "15m", round = 1 }
classes = { raw = "general-2", released = "general-1" }
"""


def widened(written: str) -> str:
    """Release the line as well: then the press follows."""
    head, tail = written.split('device = "line"')
    return head + LINE + 'device = "line"' + tail


class Desk:
    """An officer's folder with two keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = folder / "policy.toml"
        self.signed = folder / "policy.signed"
        self.text.write_text(POLICY, encoding="utf-8")
        self.keys = [folder / f"officer-{n}.key" for n in (1, 2)]
        self.publics = [SigningKey(create_key_file(key, "ed25519")).public for key in self.keys]
        lines = "".join(f'"{key.to_text()}",' for key in self.publics)
        (folder / "agent.toml").write_text(
            f"[policy]\nofficers = [{lines}]\nthreshold = 1\n", encoding="utf-8"
        )

    def run(self, *arguments: object, code: int = 0) -> str:
        done = CliRunner().invoke(policy_app, [str(one) for one in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    def rewrite(self, old: str, new: str) -> None:
        written = self.text.read_text(encoding="utf-8")
        assert old in written
        self.text.write_text(written.replace(old, new), encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_lint_names_file_line_key_and_remedy_and_its_exit_code_says_so(desk: Desk) -> None:
    desk.run("lint", desk.text)
    desk.text.write_text(widened(POLICY), encoding="utf-8")
    said = desk.run("lint", desk.text, code=1)
    line = 1 + desk.text.read_text(encoding="utf-8").splitlines().index("[[secret]]")
    assert f"policy.toml:{line}: secret[1] [derivable]" in said
    assert "→" in said
    assert "Not covered" in said


def test_two_officers_sign_the_same_bytes_one_after_the_other(desk: Desk) -> None:
    said = desk.run("sign", desk.text, "--key", desk.keys[0])
    assert "1 more signature(s) needed" in said
    first = peek_bundle(desk.signed.read_bytes())
    elsewhere = desk.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "policy.signed").write_bytes(desk.signed.read_bytes())
    said = desk.run(
        "sign",
        elsewhere / "policy.signed",
        "--key",
        desk.keys[1],
        "--agent",
        desk.folder / "agent.toml",
    )
    assert "That is enough" in said
    both = peek_bundle((elsewhere / "policy.signed").read_bytes())
    assert both.hash == first.hash
    assert set(both.signers) == {key.kid for key in desk.publics}


def test_signing_the_same_text_again_keeps_the_first_signature(desk: Desk) -> None:
    for key in desk.keys:
        desk.run("sign", desk.text, "--key", key)
    assert len(peek_bundle(desk.signed.read_bytes()).signers) == 2


def test_a_damaged_signed_policy_is_replaced(desk: Desk) -> None:
    desk.signed.write_bytes(b"half a fi")
    desk.run("sign", desk.text, "--key", desk.keys[0])
    assert len(peek_bundle(desk.signed.read_bytes()).signers) == 1


def test_what_the_lint_refuses_is_signed_only_for_a_reason_that_is_kept(desk: Desk) -> None:
    desk.text.write_text(widened(POLICY), encoding="utf-8")
    with pytest.raises(Exception, match="not signed"):
        desk.run("sign", desk.text, "--key", desk.keys[0])
    assert not desk.signed.exists()
    desk.run("sign", desk.text, "--key", desk.keys[0], "--despite", "the press is sold")
    kept = (desk.folder / "policy.overrides.txt").read_text(encoding="utf-8")
    assert "the press is sold" in kept
    assert "derivable" in kept
    assert peek_bundle(desk.signed.read_bytes()).hash.hex() in kept


def test_a_second_officer_is_refused_what_the_first_was(desk: Desk) -> None:
    desk.text.write_text(widened(POLICY), encoding="utf-8")
    desk.run("sign", desk.text, "--key", desk.keys[0], "--despite", "x")
    before = desk.signed.read_bytes()
    with pytest.raises(Exception, match="not signed"):
        desk.run("sign", desk.signed, "--key", desk.keys[1])
    assert desk.signed.read_bytes() == before


def test_versions_stay_on_the_shelf_and_the_next_one_finds_them(desk: Desk) -> None:
    desk.run("sign", desk.text, "--key", desk.keys[0])
    _, first = read_bundle_file(desk.signed)
    desk.rewrite("version = 1\n", f'version = 2\nprevious = "sha256:{first.hash.hex()}"\n')
    desk.rewrite('slot = "15m"', 'slot = "1h"')
    said = desk.run("sign", desk.text, "--key", desk.keys[0])
    assert "has a longer slot" in said
    assert "15 min → 1 h" in said
    assert "That is enough" in said
    assert [one.policy.version for one in shelf(desk.text)] == [2, 1]


def test_a_part_released_by_an_older_version_still_counts(desk: Desk) -> None:
    """Version 1 releases the hall; version 2 releases the line instead: together they disclose."""
    desk.run("sign", desk.text, "--key", desk.keys[0])
    _, first = read_bundle_file(desk.signed)
    swapped = widened(POLICY).replace("number = 1\n", "number = 1\nstop = true\n", 1)
    swapped = swapped.replace("version = 1", f'version = 2\nprevious = "sha256:{first.hash.hex()}"')
    desk.text.write_text(swapped, encoding="utf-8")
    said = desk.run("lint", desk.text, code=1)
    assert "v1 #1 main/energy" in said
    assert "v2 #2 line/energy" in said


def test_a_previous_version_that_is_not_there_is_said(desk: Desk) -> None:
    desk.rewrite("version = 1\n", f'version = 2\nprevious = "sha256:{"ab" * 32}"\n')
    assert "is not beside" in desk.run("lint", desk.text)
    assert find_previous(desk.text, text([point("a/b")])) is None


def test_diff_says_what_becomes_visible_and_what_no_longer_is() -> None:
    old = policy(
        [point("m/a", **release(1, "last", "15m")), point("m/b", **release(2, "last", "15m"))]
    )
    new = policy(
        [
            point("m/a", **release(1, "last", "5m", round="0.5")),
            point("m/c", **release(3, "last", "15m")),
        ],
        version=2,
    )
    found = compare(old, new)
    said = as_text(found, old, new)
    assert any("#1 m/a" in one and "15 min → 5 min" in one for one in found.visible)
    assert any("#1 m/a" in one and "to 1 → to 0.5" in one for one in found.visible)
    assert any("#3 m/c" in one and "did not leave before" in one for one in found.visible)
    assert any("#2 m/b: leaves no more" in one for one in found.hidden)
    assert "192 → 384" in said


def test_diff_of_a_version_with_itself_is_nothing() -> None:
    same = policy([point("m/a", **release(1, "last", "15m"))])
    found = compare(same, same)
    assert found.visible == found.hidden == ()


def test_diff_on_the_command_line_counts_the_signatures(desk: Desk) -> None:
    said = desk.run("diff", "none", desk.text)
    assert "2 of 2 officer(s) must sign" in said
    assert "It widens nothing. 1 of 2" in desk.run("diff", desk.text, desk.text)


def test_explain_goes_from_the_source_to_what_the_brain_sees(desk: Desk) -> None:
    said = desk.run("explain", desk.text, "main/energy")
    for words in ("holding:0", "15 min", "to 1 kWh", "main-meter energy.active_import", "365 days"):
        assert words in said
    assert "press/energy does not follow" in said
    assert "line/energy" in said
    assert "stays in the factory, and is declared a secret" in desk.run(
        "explain", desk.text, "press/energy"
    )


def test_explain_tells_that_a_withheld_point_follows_anyhow() -> None:
    leaky = policy(
        [
            point("m/a", **release(1, "mean", "15m")),
            point("m/b", **release(2, "mean", "15m")),
            point("m/c"),
        ],
        ["m/c"],
        {"sum": [(1, "m/a"), (-1, "m/b"), (-1, "m/c")]},
    )
    said = explain(leaky, [], "m/c")
    assert "but the amount or mean of m/c follows every 15 min" in said
    assert "FOLLOWS" in said


def test_explain_tells_why_a_constant_does_not_follow() -> None:
    hidden = policy([point("m/state", "state"), point("m/gq", "good")], derive=[derived("oee", 5)])
    said = explain(hidden, [], "k5")
    assert "k5.pru does not follow: it could be twice as large with m/gq × 1/2" in said


def test_a_name_that_nothing_has_is_told_with_the_nearest(desk: Desk) -> None:
    with pytest.raises(Exception, match="did you mean 'main/energy'"):
        desk.run("explain", desk.text, "main/enrgy")


METER = """
[[device]]
id = "main"
kind = "modbus"
host = "127.0.0.1"

[[device.points]]
id = "energy"
address = "holding:0"
type = "uint32"
unit = "Wh"
measurand = "energy.active_import"
"""


def test_what_is_configured_otherwise_is_told_before_anything_is_signed(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    agent = tmp_path / "agent.toml"
    assert "source-differs" not in desk.run("lint", desk.text)
    agent.write_text(agent.read_text("utf-8") + METER, "utf-8")
    said = desk.run("lint", desk.text)
    line = POLICY.splitlines().index('unit = "kWh"') + 1
    assert f"policy.toml:{line}: point[1].unit [source-differs]" in said
    assert "main/energy: unit is 'kWh' here and 'Wh' in agent.toml" in said
    assert "source-differs" in desk.run("sign", desk.text, "--key", desk.keys[0])
    # A signed policy is compared as well; what is not there at all is told, too.
    assert "'Wh' in agent.toml" in desk.run("lint", desk.signed)
    agent.write_text(agent.read_text("utf-8").replace('"energy"', '"other"'), "utf-8")
    assert "agent.toml has no such point" in desk.run("lint", desk.signed)


def test_a_faulty_agent_file_keeps_nobody_from_linting_unless_it_was_named(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    agent = tmp_path / "agent.toml"
    agent.write_text(METER.replace('unit = "Wh"', 'unit = "bar"'), "utf-8")
    assert "! not compared with agent.toml" in desk.run("lint", desk.text)
    with pytest.raises(ConfigError, match="'bar' does not fit"):
        desk.run("lint", desk.text, "--agent", agent)


def test_a_secret_is_told_at_its_own_line_in_whatever_order_they_stand(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.text.write_text(
        widened(POLICY).replace(
            "[[relation]]", '[[secret]]\npoint = "line/energy"\n\n[[relation]]'
        ),
        "utf-8",
    )
    desk.rewrite(LINE, "")
    desk.rewrite('[-1, "line/energy"], ', "")
    said = desk.run("lint", desk.text, code=1)
    line = desk.text.read_text("utf-8").splitlines().index("[[secret]]") + 1
    assert f"policy.toml:{line}: secret[1] [derivable]" in said
