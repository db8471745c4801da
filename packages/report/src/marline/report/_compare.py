"""Two or more runs side by side: a table, what differs between them, and their curves in one picture."""

import math
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from marline.core import METRICS, flatten, write_json
from marline.report._baseline import differences
from marline.report._metrics import PERCENTILES, SETTING
from marline.report._pictures import ACCENT, EDGE, INK, PALE, SOFT, STYLE, draw, slo_line
from marline.report._ratios import Report, pair
from marline.report._render import inline, pages
from marline.report._tables import Row, Table
from marline.report._words import accelerator_words, configuration, judged_percentile, marks, number, slo_words

COLOURS = (INK, ACCENT, SOFT, PALE)


def compared(reports: Sequence[Report]) -> dict[str, Any]:
    """Each run's metrics, the first one as the baseline of all others, and what differs; for compare.json."""
    first, *others = reports
    rows = []
    for metric in METRICS:
        cells, ratios = [_cell(metric, one, None) for one in reports], [_ratio(metric, one, first) for one in others]
        rows.append({"metric": metric, "means": METRICS[metric], "runs": cells, "ratios": ratios})
    return {
        "schema": 1,
        "runs": [f"{one['model']} {one['run']}" for one in reports],
        "confidence": first["metrics"]["confidence"],
        "not_comparable": {one["run"]: told for one in others if (told := differences(one, first))},
        "metrics": rows,
        "differs": dict(_differing(reports)),
    }


def write(reports: Sequence[Report], folder: Path) -> dict[str, Any]:
    """compare.json, compare.md, compare.html and the picture, in `folder`."""
    found = compared(reports)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", found)
    picture = _picture(reports)
    (folder / "throughput_latency.svg").write_text(picture)
    words = {
        "picture": inline(picture),
        "found": found,
        "table": table(found),
        "differs": _differs(found),
        "marks": [f"{one['run']}: {mark}" for one in reports for mark in marks(one["weights"], one["accelerator"])],
    }
    for kind in ("md", "html"):
        (folder / f"compare.{kind}").write_text(pages(kind).get_template(f"compare.{kind}").render(words))
    return found


def table(found: dict[str, Any]) -> Table:
    """The metrics, each with its interval, and each other run's ratio to the first."""
    others = [name.rpartition(" ")[2] for name in found["runs"][1:]]
    head = ("metric", *(name.rpartition(" ")[2] for name in found["runs"]), *(f"{name} / first" for name in others))
    rows = (Row((row["metric"], *map(_shown, row["runs"]), *map(_shown, row["ratios"]))) for row in found["metrics"])
    return Table(head, tuple(rows))


def _differs(found: dict[str, Any]) -> Table:
    rows = (Row((key, *("–" if value is None else str(value) for value in values))) for key, values in found["differs"].items())
    return Table(
        ("", *(name.rpartition(" ")[2] for name in found["runs"])), tuple(rows), frozenset(range(len(found["runs"]) + 1))
    )


def _cell(metric: str, one: Report, then: Report | None) -> dict[str, Any]:
    """A figure or a ratio with its ends; None where there is none, and why."""
    found = pair(metric, one, then)
    if found.problem is not None:
        return {"value": None, "low": None, "high": None, "why": found.problem}
    value, low, high = found.ratio(one["metrics"]["confidence"])
    at = f"at {number(one['chosen']['rps'])} /s" if metric in PERCENTILES and then is None else ""
    return {"value": value, "low": low or None, "high": high if math.isfinite(high) else None, "why": at}


def _ratio(metric: str, now: Report, first: Report) -> dict[str, Any]:
    told = differences(now, first)
    return {"value": None, "low": None, "high": None, "why": "; ".join(told)} if told else _cell(metric, now, first)


def _shown(cell: dict[str, Any]) -> str:
    if cell["value"] is None and cell["low"] is None:
        return "–"
    ends = f"{number(cell['low'] or 0.0)} to {'∞' if cell['high'] is None else number(cell['high'])}"
    return f"{number(cell['value'])} ({ends}) {cell['why']}".strip()


def _differing(reports: Sequence[Report]) -> Iterator[tuple[str, list[Any]]]:
    """Settings, versions and archives that are not the same in all runs."""
    told = [
        {
            "chosen": configuration(one["chosen"]),
            "archive sha256": one.get("archive", {}).get("sha256", "")[:12],
            "tuned archive sha256": one["tuned"]["sha256"][:12],
            "weights": one["weights"]["detail"],
            "profile": one.get("profile"),
            "accelerator": accelerator_words(one["accelerator"]),
            "SLO": slo_words(one["slo"]),
            **{f"machine {key}": value for key, value in one["machine"].items()},
            **{f"version of {name}": version for name, version in one["versions"].items()},
            **{f"values {value['key']}": value["now"] for value in one["values"]},
            **{f"load {key}": value for key, value in flatten(one["metrics"]["load"] or {})},
        }
        for one in reports
    ]
    for key in dict.fromkeys(key for one in told for key in one):
        values = [one.get(key) for one in told]
        if any(value != values[0] for value in values):
            yield key, values


def _picture(reports: Sequence[Report]) -> str:
    """Latency against offered rate of each run's chosen configuration; what was lost stands at the upper edge."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": "compare"}):
        figure = Figure(figsize=(7.6, 4.1), layout="constrained")
        name, slo = judged_percentile(dict(reports[0])), reports[0]["slo"]
        axes = figure.subplots()
        lines = [sorted(_chosen(one), key=lambda trial: trial["offered_rps"]) for one in reports]
        edge = EDGE * max([slo["ms"], *(trial[name] or 0.0 for line in lines for trial in line)])
        for colour, one, line in zip(cycle(COLOURS), reports, lines, strict=False):
            rates, label = [trial["offered_rps"] for trial in line], f"{one['run']}: {configuration(one['chosen'])}"
            axes.plot(rates, [trial[name] or edge for trial in line], color=colour, marker="o", markersize=4.5, label=label)
        slo_line(axes, slo)
        axes.set(yscale="log", xlabel="offered load, requests/s", ylabel=f"{name.removesuffix('_ms')} latency, ms")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlim(left=0)
        axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        return draw(figure).svg


def _chosen(report: Report) -> list[dict[str, Any]]:
    """The valid trials of the chosen configuration."""
    wanted = [report["chosen"][key] for key in SETTING]
    return [trial for trial in report["trials"] if trial["valid"] and [trial[key] for key in SETTING] == wanted]
