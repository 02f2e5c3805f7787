"""`millgate policy`: the officer's tools, from a draft to what left yesterday."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from protocols.language import tr

PolicyPath = Annotated[
    Path, typer.Argument(help=tr("policy.toml or policy.signed", "policy.toml 或 policy.signed"))
]
AgentOption = Annotated[
    Path | None,
    typer.Option(help=tr("default: agent.toml beside the policy", "默认为策略同目录的 agent.toml")),
]
HistoryOption = Annotated[
    Path | None,
    typer.Option(help=tr("CSV of the firm's own past", "企业自有历史数据 CSV")),
]
LiveOption = Annotated[
    str | None,
    typer.Option(help=tr("read the devices now, for so long", "现在读取设备，持续时长")),
]

_PREVIEW: Final = tr(
    "Show the exact rows that would leave, beside what stays.\n\n"
    "The rows come out of the gate itself, run over the firm's own past. Files hold only what would "
    "leave; what stays is printed to this terminal and nowhere else.\n\n"
    "Examples: millgate policy preview mill/policy.toml --live 2m\n"
    "          millgate policy preview mill/policy.toml --history past.csv --html preview.html",
    "显示将要外发的每一行，并与留在厂内的数据对照。\n\n"
    "结果由真正的闸门对企业自有历史数据运行得出。写入文件的只有将要外发的内容；留在厂内的只显示在此终端。\n\n"
    "示例：millgate policy preview mill/policy.toml --live 2m\n"
    "      millgate policy preview mill/policy.toml --history past.csv --html preview.html",
)


def register(app: typer.Typer) -> None:
    """Add the commands to `millgate policy`."""
    app.command("preview", help=_PREVIEW)(preview)


def preview(
    path: PolicyPath,
    agent: AgentOption = None,
    history: HistoryOption = None,
    live: LiveOption = None,
    html: Annotated[
        Path | None, typer.Option(help=tr("write what would leave", "写出将要外发的内容"))
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help=tr("write what would leave", "写出将要外发的内容"))
    ] = None,
    rows: Annotated[
        int, typer.Option(help=tr("slots shown of each point", "每个点显示的时段数"), min=1)
    ] = 6,
) -> None:
    """Show the exact rows that would leave."""
    from security.policy.tools import page, sources  # noqa: PLC0415 - the command line starts fast
    from security.policy.tools import preview as tool  # noqa: PLC0415 - same

    devices = sources.devices_of(sources.agent_beside(path, agent))
    policy = sources.read_policy(path)
    found = tool.Preview.of(policy, sources.read_past(devices, history, live))
    tool.show(found, Console(), rows)
    for target, text in ((html, tool.as_html), (csv, tool.as_csv)):
        if target is not None:
            page.write_page(target, text(found))
            typer.echo(str(target))
