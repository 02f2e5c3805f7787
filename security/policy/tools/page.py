"""One self-contained HTML page, for reading and printing; no script, nothing from elsewhere."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Final

from protocols.language import tr

_PAGE: Final = Template("""<!doctype html>
<html lang="$lang"><head><meta charset="utf-8"><title>$title</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 11pt/1.5 "Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC", sans-serif;
       margin: 2em auto; max-width: 60em; padding: 0 1em; color: #111; background: #fff }
h1 { font-size: 1.5em; margin-bottom: 0.2em } h2 { font-size: 1.15em; margin: 1.6em 0 0.4em }
p.lead { color: #444; margin-top: 0 } table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #ccc; padding: 0.25em 0.6em; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #444 } td.n { text-align: right; font-variant-numeric: tabular-nums }
tr { break-inside: avoid } @page { margin: 18mm 15mm }
</style></head><body>
<h1>$title</h1>
<p class="lead">$lead</p>
$body
</body></html>
""")


def page(title: str, lead: str, sections: Iterable[str]) -> str:
    """Return a page; `sections` are HTML already."""
    return _PAGE.substitute(
        lang=tr("en", "zh-CN"), title=escape(title), lead=escape(lead), body="\n".join(sections)
    )


def escape(text: str) -> str:
    """Return text as HTML."""
    return html.escape(text)


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(text)}</p>"


def table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], numeric: int = 0
) -> str:
    """Return a titled table; its last `numeric` columns are aligned as numbers."""
    first = len(header) - numeric
    head = "".join(f"<th>{escape(word)}</th>" for word in header)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="n">{escape(cell)}</td>' if at >= first else f"<td>{escape(cell)}</td>"
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<h2>{escape(title)}</h2>\n<table><tr>{head}</tr>\n{body}\n</table>"


def write_page(path: Path, text: str) -> None:
    """Write a page or another text as UTF-8."""
    path.write_text(text, encoding="utf-8")
