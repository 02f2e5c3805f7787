"""`aggregator doctor`: what the next start would refuse, it tells before, by the same reader."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aggregator.cli import app
from aggregator.config import AggregatorConfig, read_config
from aggregator.doctor import examine
from aggregator.rules import read_rules
from protocols.checkup import Grade
from protocols.errors import ConfigError
from protocols.language import spoken_to


def brain(folder: Path, old: str, new: str) -> AggregatorConfig:
    made = CliRunner().invoke(app, ["init", str(folder / "brain"), "--broker-port", "9"])
    assert made.exit_code == 0
    path = folder / "brain" / "aggregator.toml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    return read_config(path)


async def faults(config: AggregatorConfig) -> list[str]:
    found = await examine(config)
    return [one.what for one in found if one.grade is Grade.FAULT]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('region = "CN-ZJ"', 'region = "CN-ZZ"'),
        ('factor_set = ""', 'factor_set = "cn-electricity-1999"'),
        ('fuel_set = "cn-fuel-a"', 'fuel_set = "cn-fuel-x"'),
        ('code_profile = "zj-2021-method"', 'code_profile = "zj-2021"'),
        ('calendar = ""', 'calendar = "cn-zj"'),
    ],
)
async def test_a_name_that_no_start_would_take_is_told_with_its_line(
    tmp_path: Path, old: str, new: str
) -> None:
    with spoken_to(chinese=False):
        config = brain(tmp_path, old, new)
        with pytest.raises(ConfigError) as caught:
            read_rules(config)
        (fault,) = caught.value.faults
        line = int(fault.where.rpartition(":")[2])
        assert config.path.read_text("utf-8").splitlines()[line - 1].startswith(new)
        assert f"{fault.where}: {fault.what}" in await faults(config)


async def test_a_certificate_whose_key_is_not_there_is_told(tmp_path: Path) -> None:
    own = 'token_file = "keys/api.token"\ncertificate = "brain.card"\nprivate_key = "no.key"'
    config = brain(tmp_path, 'token_file = "keys/api.token"', own)
    assert any("no.key" in one for one in await faults(config))
