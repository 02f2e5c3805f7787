"""`millgate policy`: the officer's tools, from a draft to what left yesterday."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.sheet import screen, show_text

if TYPE_CHECKING:
    from protocols.points import PointTable
    from security.policy.tools.lint import Subject

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


_LINT: Final = tr(
    "Look for what a policy lets out beyond what was meant: every fault with line, key and remedy.\n\n"
    "Exit code 0: nothing that keeps it from being signed; 1: errors.\n\n"
    "Example: millgate policy lint mill/policy.toml",
    "检查策略是否泄露了本意之外的内容：逐条给出行号、键与改法。\n\n"
    "退出码 0：可以签署；1：有错误。\n\n示例：millgate policy lint mill/policy.toml",
)
_DIFF: Final = tr(
    "Say in plain words what becomes newly visible from one version to the next.\n\n"
    "Example: millgate policy diff mill/policy.signed mill/policy.toml",
    "用日常语言说明新版本使哪些内容变得可见、哪些不再可见。\n\n"
    "示例：millgate policy diff mill/policy.signed mill/policy.toml",
)
_EXPLAIN: Final = tr(
    "Show a point's way from its source to what the brain sees, and why each secret holds.\n\n"
    "Example: millgate policy explain mill/policy.toml meter-1/energy",
    "说明一个点从来源到产业大脑所见的每一步，以及各秘密为何推不出来。\n\n"
    "示例：millgate policy explain mill/policy.toml meter-1/energy",
)
_ATTACK: Final = tr(
    "Try to find the declared secrets out from what would leave, on the firm's own past.\n\n"
    "Exit code 1: an attack succeeded.\n\n"
    "Example: millgate policy attack mill/policy.toml --history past.csv",
    "用企业自有历史数据，尝试从将要外发的内容推算出已声明的秘密。\n\n"
    "退出码 1：有攻击得手。\n\n示例：millgate policy attack mill/policy.toml --history past.csv",
)
_SIGN: Final = tr(
    "Lint, compile and sign a policy; or add a signature to one that another officer signed.\n\n"
    "Examples: millgate policy sign mill/policy.toml --key officer-1.key\n"
    "          millgate policy sign mill/policy.signed --key officer-2.key",
    "检查、编译并签署策略；或在另一名数据官已签署的策略上加签。\n\n"
    "示例：millgate policy sign mill/policy.toml --key officer-1.key\n"
    "      millgate policy sign mill/policy.signed --key officer-2.key",
)
_STOP: Final = tr(
    "Stop everything that leaves, at once: one officer's signature is enough.\n\n"
    "The stop goes beside policy.signed at the agent; nothing is lost but what it suppresses, the brain "
    "gets an honest signed gap, and only a newer policy lifts it.\n\n"
    "Example: millgate policy stop mill/policy.signed --key officer.key --reason audit",
    "一键停止全部外发：一名数据官签名即可。\n\n"
    "停止令放在代理程序的 policy.signed 旁；产业大脑会收到如实签名的缺口说明，只有更新的策略才能恢复外发。\n\n"
    "示例：millgate policy stop mill/policy.signed --key officer.key --reason 审计",
)
_CONFIRM: Final = tr(
    "Confirm that a policy still holds, where the agent asks for it ([policy] max_stale).\n\n"
    "Example: millgate policy confirm mill/policy.signed --key officer.key",
    "确认策略仍然有效（当代理程序设有 [policy] max_stale 时需要）。\n\n"
    "示例：millgate policy confirm mill/policy.signed --key officer.key",
)
KeysOption = Annotated[
    list[Path],
    typer.Option(help=tr("an officer's private key (repeatable)", "数据官私钥（可重复）")),
]
SignedPath = Annotated[
    Path, typer.Argument(help=tr("path of policy.signed", "policy.signed 的路径"))
]
RetainedOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        help=tr(
            "a signed version whose data may still be kept (repeatable); those beside it are found",
            "数据可能仍被保存的已签署版本（可重复）；同目录的会自动找到",
        ),
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `millgate policy`."""
    app.command("lint", help=_LINT)(lint)
    app.command("preview", help=_PREVIEW)(preview)
    app.command("diff", help=_DIFF)(diff)
    app.command("explain", help=_EXPLAIN)(explain)
    app.command("attack", help=_ATTACK)(attack)
    app.command("sign", help=_SIGN)(sign)
    app.command("confirm", help=_CONFIRM)(confirm)
    app.command("stop", help=_STOP)(stop)


def _subject(
    path: Path, more: list[Path] | None, tables: Mapping[str, "PointTable"] | None = None
) -> "Subject":
    from security.policy.tools import shelf  # noqa: PLC0415 - the command line starts fast
    from security.policy.tools.lint import Subject  # noqa: PLC0415 - same

    drafts = [*shelf.shelf(path), *(shelf.read_bundle_file(one)[1] for one in more or [])]
    if path.suffix == ".toml":
        text, policy = shelf.compile_text(path)
        note = shelf.previous_note(path, text)
        if note:
            typer.echo(f"! {note}", err=True)
    else:
        text, policy = None, shelf.read_bundle_file(path)[1].policy
    return Subject.of(policy, text, shelf.retained(drafts, policy, int(time.time())), tables)


def _configured(path: Path, agent: Path | None) -> Mapping[str, "PointTable"] | None:
    """Return the configured points; a faulty agent.toml that nobody named keeps nobody from looking."""
    from security.policy.tools.sources import tables_beside  # noqa: PLC0415 - the command line starts fast

    try:
        return tables_beside(path, agent)
    except ConfigError as error:
        if agent is not None:
            raise
        what = tr("not compared with agent.toml", "未与 agent.toml 核对")
        typer.echo(f"! {what}: {error.faults[0]}", err=True)
        return None


def lint(
    path: PolicyPath,
    retained: RetainedOption = None,
    agent: AgentOption = None,
    as_json: Annotated[bool, typer.Option("--json", help=tr("as JSON", "输出 JSON"))] = False,  # noqa: FBT002 - a flag
) -> None:
    """Look for what a policy lets out beyond what was meant."""
    from security.policy.tools import report  # noqa: PLC0415 - the command line starts fast
    from security.policy.tools.findings import Severity  # noqa: PLC0415 - same
    from security.policy.tools.lint import lint as look  # noqa: PLC0415 - same
    from security.policy.tools.lint import scope  # noqa: PLC0415 - same

    subject = _subject(path, retained, _configured(path, agent))
    findings = look(subject)
    if as_json:
        data = {"findings": report.as_data(findings, path), "scope": scope(subject)}
        typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        parts = [report.in_words(findings, path), report.count(findings), scope(subject)]
        typer.echo("\n\n".join(part for part in parts if part))
    if any(one.severity is Severity.ERROR for one in findings):
        raise typer.Exit(1)


def diff(
    old: Annotated[
        Path,
        typer.Argument(help=tr("the version before; 'none' for none", "旧版本；没有则写 none")),
    ],
    new: Annotated[Path, typer.Argument(help=tr("the new version", "新版本"))],
    agent: AgentOption = None,
) -> None:
    """Say what becomes newly visible."""
    from security.policy.tools import sources  # noqa: PLC0415 - the command line starts fast
    from security.policy.tools.diff import as_text, compare  # noqa: PLC0415 - same
    from security.policy.tools.officers import signatures_needed  # noqa: PLC0415 - same

    before = None if str(old) == "none" else sources.read_policy(old)
    after = sources.read_policy(new)
    found = compare(before, after)
    show_text(as_text(found, before, after))
    typer.echo(signatures_needed(sources.agent_beside(new, agent), wider=bool(found.widening)))


def explain(
    path: PolicyPath,
    name: Annotated[
        str,
        typer.Argument(
            help=tr("device/point, a number, or a derivation", "device/point、编号或 derive 名称")
        ),
    ],
    retained: RetainedOption = None,
) -> None:
    """Show a point's way, and why secrets hold."""
    from security.policy.tools.explain import explain as tell  # noqa: PLC0415 - the command line starts fast

    subject = _subject(path, retained)
    listed = None if subject.text is None else [one.name for one in subject.text.point]
    typer.echo(tell(subject.policy, subject.retained, name, listed))


def attack(
    path: PolicyPath,
    agent: AgentOption = None,
    history: HistoryOption = None,
    live: LiveOption = None,
) -> None:
    """Try to find the secrets out."""
    from security.policy.tools import sources  # noqa: PLC0415 - the command line starts fast
    from security.policy.tools.attack import as_text  # noqa: PLC0415 - same
    from security.policy.tools.attack import attack as try_all  # noqa: PLC0415 - same
    from security.policy.tools.lint import ranges_of  # noqa: PLC0415 - same

    devices = sources.devices_of(sources.agent_beside(path, agent))
    subject = _subject(path, None)
    past = sources.read_past(devices, history, live)
    for note in past.notes:
        typer.echo(f"! {note}", err=True)
    results = try_all(subject.policy, past, ranges_of(subject.text))
    show_text(as_text(results))
    if any(one.succeeded for one in results):
        raise typer.Exit(1)


def sign(
    path: PolicyPath,
    key: KeysOption,
    out: Annotated[
        Path | None,
        typer.Option(help=tr("default: policy.signed beside it", "默认为同目录 policy.signed")),
    ] = None,
    despite: Annotated[
        str,
        typer.Option(
            help=tr("why it is signed although lint finds errors", "虽有错误仍签署的理由")
        ),
    ] = "",
    agent: AgentOption = None,
    retained: RetainedOption = None,
) -> None:
    """Lint, compile and sign; or add a signature."""
    from security.at_rest import asked  # noqa: PLC0415 - the command line starts fast
    from security.policy.tools import report, shelf, signing  # noqa: PLC0415 - same
    from security.policy.tools.diff import as_text, compare  # noqa: PLC0415 - same
    from security.policy.tools.lint import lint as look  # noqa: PLC0415 - same
    from security.policy.tools.officers import after_signing  # noqa: PLC0415 - same
    from security.signers import load_signer  # noqa: PLC0415 - same

    keys = [load_signer(one, asked) for one in key]
    subject = _subject(path, retained, _configured(path, agent))
    findings = look(subject)
    if findings:
        typer.echo(report.in_words(findings, path) + "\n", err=True)
    signing.check_findings(findings, despite, path)
    if path.suffix == ".toml":
        signed = signing.sign_text(subject.policy, keys, out or path.with_name("policy.signed"))
    else:
        signed = signing.add_signature(path, keys)
    kept = signing.note_reason(signed, findings, despite)
    older = [one.policy for one in shelf.shelf(signed.path) if one.hash == signed.policy.previous]
    before = older[0] if older else None
    show_text(as_text(compare(before, signed.policy), before, signed.policy))
    typer.echo(after_signing(signed, agent or signed.path.with_name("agent.toml"), before))
    if kept is not None:
        typer.echo(tr(f"{kept}: the reason is kept here", f"{kept}：理由已记录于此"))


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
    tool.show(found, screen(), rows)
    for target, text in ((html, tool.as_html), (csv, tool.as_csv)):
        if target is not None:
            page.write_page(target, text(found))
            typer.echo(str(target))


def stop(
    path: SignedPath,
    key: KeysOption,
    reason: Annotated[str, typer.Option(help=tr("kept in the factory only", "仅保存在厂内"))] = "",
) -> None:
    """Stop everything that leaves."""
    from security.at_rest import asked  # noqa: PLC0415 - the command line starts fast
    from security.policy.stop import MOST_REASON, Stop, sign_stop, write_stop  # noqa: PLC0415 - same
    from security.policy.tools.shelf import read_bundle_file  # noqa: PLC0415 - same
    from security.signers import load_signer  # noqa: PLC0415 - same

    if len(reason) > MOST_REASON:
        raise MillgateError(tr("the reason is too long", "理由过长"), where="--reason")
    keys = [load_signer(one, asked) for one in key]
    version = read_bundle_file(path)[1].policy.version
    written = write_stop(
        path, sign_stop(Stop(through=version, at=int(time.time()), reason=reason), keys)
    )
    typer.echo(
        tr(
            f"{written}: version {version} and every older one are stopped. Beside the agent's "
            f"policy.signed it takes effect within seconds. To go on, sign version {version + 1}.",
            f"{written}：版本 {version} 及所有更早版本已停止。放在代理程序的 policy.signed 旁，数秒内生效。"
            f"要恢复外发，请签署版本 {version + 1}。",
        )
    )


def confirm(path: SignedPath, key: KeysOption) -> None:
    """Confirm that a policy still holds."""
    from security.at_rest import asked  # noqa: PLC0415 - the command line starts fast
    from security.policy.fresh import Fresh, sign_fresh, write_fresh  # noqa: PLC0415 - same
    from security.policy.tools.shelf import read_bundle_file  # noqa: PLC0415 - same
    from security.signers import load_signer  # noqa: PLC0415 - same

    keys = [load_signer(one, asked) for one in key]
    draft = read_bundle_file(path)[1]
    target = write_fresh(path, sign_fresh(Fresh(policy=draft.hash, at=int(time.time())), keys))
    typer.echo(
        tr(
            f"{target}: version {draft.policy.version} is confirmed",
            f"{target}：已确认版本 {draft.policy.version} 仍然有效",
        )
    )
