"""Who is at the other end: a person at a terminal, or a program."""

import sys

import typer

from protocols.errors import MillgateError
from protocols.language import tr


def interactive() -> bool:
    """Tell whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def raw_values_may_be_shown(*, redirect: bool) -> None:
    """Do nothing where raw values may be printed: to the terminal of who asks.

    Args:
        redirect: whether it was said in so many words that they may go elsewhere.

    Raises:
        MillgateError: where they would end up in a file or another program.
    """
    if sys.stdout.isatty() or redirect:
        return
    raise MillgateError(
        tr("raw values are shown on a terminal only", "原始值仅在终端上显示"),
        remedy=tr(
            "run it at a terminal; --redirect-raw-values lets them go elsewhere, where the policy "
            "protects nothing",
            "请在终端上运行；--redirect-raw-values 允许输出到别处，但在那里不受策略保护",
        ),
    )


def progress(text: str) -> None:
    """Say on the terminal how far it is, in one line that is written over."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[2K{text}", err=True, nl=False)


def progress_over() -> None:
    """Take the line of progress away."""
    if sys.stderr.isatty():
        typer.echo("\r\x1b[2K", err=True, nl=False)


def choose(question: str, choices: list[str]) -> int:
    """Have somebody choose one of several; return its place."""
    typer.echo(question)
    for number, choice in enumerate(choices, 1):
        typer.echo(f"  {number}  {choice}")
    while True:
        answer: int = typer.prompt(tr("number", "编号"), type=int)
        if 1 <= answer <= len(choices):
            return answer - 1
