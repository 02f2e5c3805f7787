"""What each process of the agent loads: what it does not need costs memory on a small machine."""

import subprocess
import sys

import pytest

# Each is a library of several megabytes that some other process, or another kind of device, needs.
COMMAND_LINE = {"typer", "rich", "click"}
HTTP = {"aiohttp", "yarl"}
OPCUA = {"asyncua"}
BROKER = {"paho", "sqlite3"}
# The officers' text is for the commands; what enforces it knows what is compiled alone.
TEXT = {"security.policy.clauses", "security.policy.language", "security.policy.compiler"}
COLUMNS = {"numpy", "pydantic", "cryptography"}
ELSEWHERE = COMMAND_LINE | HTTP | {"pyarrow", "influxdb_client", "amqtt", "pymodbus"}


@pytest.mark.parametrize(
    ("loaded", "never"),
    [
        ("import agent.gate_app; load('modbus')", ELSEWHERE | OPCUA | BROKER | TEXT),
        ("import agent.gate_app; load('opcua')", ELSEWHERE | BROKER | TEXT),
        ("import agent.sealed_app", ELSEWHERE | OPCUA | TEXT),
        ("import agent.supervisor", ELSEWHERE | OPCUA | BROKER | COLUMNS),
    ],
    ids=["gate side with Modbus", "gate side with OPC-UA", "sealed side", "supervisor"],
)
def test_a_process_loads_no_library_that_it_does_not_need(loaded: str, never: set[str]) -> None:
    program = f"""
import sys
def load(kind):
    from protocols.drivers import load
    load(kind)
{loaded}
print(*sys.modules, *{{name.partition(".")[0] for name in sys.modules}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    modules = set(done.stdout.split())
    assert "agent" in modules
    assert sorted(modules & never) == []
