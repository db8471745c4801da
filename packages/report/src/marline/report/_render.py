"""Lay the report out as HTML and as Markdown: the same words, two templates."""

import html as escapes
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from marline.report import _found, _planning, _tables
from marline.report._gate import gate_table, lines, refusal
from marline.report._notes import figures, frontend, notes, register, untested
from marline.report._pictures import Drawn
from marline.report._remarks import remarks
from marline.report._words import SIGNS

LOADER = jinja2.PackageLoader("marline.report")
TABLES = {
    _tables: ("beside", "planned", "tried", "served", "proven", "timed", "origin"),
    _found: ("compared", "diagnosed", "valued", "watched"),
    _planning: ("priced", "resourced", "spent", "objectives", "loads", "scaled", "started"),
}


def html(report: dict[str, Any], wide: Mapping[str, Drawn], narrow: Mapping[str, Drawn]) -> str:
    """One self-contained page; the pictures are SVG documents and become part of it, `narrow` ones on phones."""
    pictures, small = ({name: inline(one.svg) for name, one in told.items()} for told in (wide, narrow))
    return pages("html").get_template("report.html").render(_words(report) | {"pictures": pictures, "small": small})


def markdown(report: dict[str, Any]) -> str:
    """Markdown as GitHub shows it; the pictures are the files beside it."""
    return pages("md").get_template("report.md").render(_words(report))


def pages(kind: str, *packages: str) -> jinja2.Environment:
    """Templates of the report for `html` or `md`, with those of other packages before them: theirs include ours and look alike.

    For them are report.css, `grid` of grid.html and table.md, the last two for a `Table`.
    """
    loader = jinja2.ChoiceLoader([*(jinja2.PackageLoader(package) for package in packages), LOADER])
    told = HTML if kind == "html" else MARKDOWN
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **told)  # noqa: S701 - each kind says how


def _words(report: dict[str, Any]) -> dict[str, Any]:
    tables = {name: getattr(home, name)(report) for home, names in TABLES.items() for name in names}
    return {
        "report": report,
        "marks": [*refusal(report), *report["verdict"]["marks"]],
        "predicted": bool(report["map"]),
        "sign": SIGNS[report["chosen"]["slo_met"]],
        "met": "met" if report["chosen"]["slo_met"] else "open",
        "notes": notes(report) | remarks(report),
        "figures": figures(report),
        "untested": untested(report),
        "frontend": frontend(report),
        "register": register(report),
        "gate": gate_table(report),
        "gate_lines": lines(report["baseline"]) if report["baseline"] is not None else [],
        **tables,
    }


def inline(svg: str) -> Markup:
    """The svg element alone, without ids that two pictures would share.

    Ids that are referred to hold a digest and stay.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r' xmlns(:\w+)?="[^"]*"', "", element)
    return Markup(re.sub(r' id="[a-zA-Z0-9]+(\.[a-z]+)?_\d+"', "", element))  # noqa: S704 - drawn from numbers and fixed words


def plain(value: object) -> str:
    """Text that Markdown takes as text: no HTML, no link, no table border, no line break."""
    if isinstance(value, Markup):
        return value
    text = escapes.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", text)


HTML: dict[str, Any] = {"autoescape": True}
MARKDOWN: dict[str, Any] = {"autoescape": False, "finalize": plain, "trim_blocks": True, "lstrip_blocks": True}
