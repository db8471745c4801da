"""Lay the report out as HTML and as Markdown: the same words, two templates."""

import html as escapes
import re
from typing import Any

import jinja2
from markupsafe import Markup

from marline.report import _found, _tables
from marline.report._gate import gate_table, lines
from marline.report._map import cells
from marline.report._notes import figures, frontend, notes, register, untested
from marline.report._words import SIGNS

LOADER = jinja2.PackageLoader("marline.report")


def html(report: dict[str, Any], *, wide: str, narrow: str, curve: str, pairs: str) -> str:
    """One self-contained page; the pictures are SVG documents and become part of it, but for `pairs` where that is empty."""
    pages = _environment(autoescape=True)
    pictures = {"wide": _inline(wide), "narrow": _inline(narrow), "curve_picture": _inline(curve)}
    pictures["map_picture"] = _inline(pairs) if pairs else Markup("")
    return pages.get_template("report.html").render(_words(report) | pictures)


def markdown(report: dict[str, Any]) -> str:
    """Markdown as GitHub shows it; the picture is the file throughput_latency.svg beside it."""
    pages = _environment(autoescape=False, finalize=plain, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template("report.md").render(_words(report))


def _environment(**options: Any) -> jinja2.Environment:
    return jinja2.Environment(loader=LOADER, undefined=jinja2.StrictUndefined, **options)  # noqa: S701 - both callers say how


def _words(report: dict[str, Any]) -> dict[str, Any]:
    tables = {
        name: getattr(_tables, name)(report) for name in ("beside", "planned", "tried", "served", "proven", "timed", "origin")
    } | {name: getattr(_found, name)(report) for name in ("compared", "diagnosed", "valued", "watched")}
    return {
        "report": report,
        "predicted": bool(cells(report)),
        "sign": SIGNS[report["chosen"]["slo_met"]],
        "met": "met" if report["chosen"]["slo_met"] else "open",
        "notes": notes(report),
        "figures": figures(report),
        "untested": untested(report),
        "frontend": frontend(report),
        "register": register(report),
        "gate": gate_table(report),
        "gate_lines": lines(report["baseline"]) if report["baseline"] is not None else [],
        **tables,
    }


def _inline(svg: str) -> Markup:
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
