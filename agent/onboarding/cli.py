"""The commands by which an agent gets configured, as `millgate agent` shows them."""

import typer

from agent.onboarding import add_cli, points_cli, probe_cli, profiles_cli, read_cli, scan_cli


def mount(app: typer.Typer) -> None:
    """Put the commands into `millgate agent`."""
    app.command("scan", help=scan_cli.HELP)(scan_cli.scan)
    app.command("add", help=add_cli.HELP)(add_cli.add)
    app.command("probe", help=probe_cli.HELP)(probe_cli.probe)
    app.command("read", help=read_cli.HELP)(read_cli.read)
    app.command("profiles", help=profiles_cli.HELP)(profiles_cli.profiles)
    app.add_typer(points_cli.app, name="points")
