"""The pictures, as SVG whose text stays text and as PNG; the same report always gives the same bytes."""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from marline.report._words import accelerator_words, is_reported, judged_percentile, milliseconds, number, slo_words

INK, SOFT, PALE, ACCENT = "#1b1f24", "#5b6570", "#c3cad1", "#0b6e69"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": PALE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "text.parse_math": False,
}
STAGES = (("inference", "inference_ms", ACCENT), ("preprocess", "pre_ms", SOFT), ("postprocess", "post_ms", PALE))
WHOLE = (("the whole handler", "p50_ms", ACCENT),)
TIP = "tip "  # before the words of a tooltip, where matplotlib writes an id
DOTS_PER_INCH = 150
NARROW = 4.5  # inches: too few for the longest name of an emulated accelerator on one line
EDGE = 1.6  # lost trials stand this far above everything finite, as a factor
Report = dict[str, Any]
Trial = dict[str, Any]
Key = tuple[int, int, int]


class Drawn(NamedTuple):
    """One picture: as it stands in a page, and what `png` makes for those that show no SVG."""

    svg: str
    figure: Figure

    def png(self) -> bytes:
        """The same in pixels."""
        image = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(image, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        return image.getvalue()


def throughput_picture(report: Report, width: float) -> Drawn:
    """Latency against offered rate, one line per configuration; width in inches."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": f"throughput {width}"}):
        figure = Figure(figsize=(width, 4.1), layout="constrained")
        axes = figure.subplots()
        top = _top(report)
        for key in sorted(keys_of(report), key=lambda key: (key == key_of(report["chosen"]), key == key_of(report["default"]))):
            _draw_configuration(axes, report, key, top)
        _draw_invalid(axes, report, top)
        _draw_slo(axes, report, top)
        _scale(axes, judged_percentile(report).removesuffix("_ms"), top)
        legend(axes, report, columns=2 if width > 6 else 1)
        stamp(figure, report)
        return draw(figure)


def curve_picture(report: Report) -> Drawn:
    """Time per item against batch size, by what it is spent on."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": "curve"}):
        figure = Figure(figsize=(4.2, 2.3), layout="constrained")
        axes = figure.subplots()
        places, below = range(len(report["curve"])), [0.0] * len(report["curve"])
        for name, key, colour in STAGES if is_reported(report) else WHOLE:
            heights = [point[key] / point["batch"] for point in report["curve"]]
            axes.bar(places, heights, 0.62, bottom=below, color=colour, label=name)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        for place, height in zip(places, below, strict=True):
            axes.annotate(
                number(height, 2), (place, height), (0, 2), textcoords="offset points", ha="center", fontsize=8, color=SOFT
            )
        axes.set_xticks(places, [str(point["batch"]) for point in report["curve"]])
        axes.set_xlabel("batch size")
        axes.set_ylabel("ms per item")
        axes.margins(y=0.12)
        axes.legend(frameon=False, fontsize=8, labelcolor=SOFT, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        stamp(figure, report)
        return draw(figure)


def _draw_configuration(axes: Axes, report: Report, key: Key, top: float) -> None:
    ours = (trial for trial in report["trials"] if trial["valid"] and key_of(trial) == key)
    trials = sorted(ours, key=lambda trial: trial["offered_rps"])
    chosen, default = key == key_of(report["chosen"]), key == key_of(report["default"])
    colour = ACCENT if chosen else INK if default else PALE
    rates = [trial["offered_rps"] for trial in trials]
    judged = _heights(trials, judged_percentile(report), top)
    if chosen:
        axes.fill_between(rates, _heights(trials, "p50_ms", top), judged, color=ACCENT, alpha=0.12, linewidth=0, zorder=2)
        axes.plot(rates, _heights(trials, "p95_ms", top), color=ACCENT, linewidth=0.9, linestyle=":", zorder=3)
    names = " and ".join(["chosen"] * chosen + ["TorchServe's default"] * default)
    label = f"{names}: batch {key[0]}, delay {key[1]} ms" if names else None
    axes.plot(
        rates,
        judged,
        color=colour,
        linewidth=1.9 if names else 1.1,
        marker="o",
        markersize=4.5,
        zorder=3 + bool(names),
        label=label,
    )
    for trial, height in zip(trials, judged, strict=True):
        words = ", ".join(f"{name} {milliseconds(trial[f'{name}_ms'], trial['samples'])} ms" for name in ("p50", "p95", "p99"))
        offered = f"{number(trial['offered_rps'])} requests/s offered, n = {trial['samples']:,}"
        tip(axes, trial["offered_rps"], height, f"batch {key[0]}, delay {key[1]} ms, workers {key[2]}: {offered}; {words}")
    lost = [trial["offered_rps"] for trial in trials if trial[judged_percentile(report)] is None]
    axes.scatter(lost, [top] * len(lost), marker="^", s=46, facecolors="white", edgecolors=colour, zorder=5)


def _draw_invalid(axes: Axes, report: Report, top: float) -> None:
    trials = [trial for trial in report["trials"] if not trial["valid"]]
    if trials:
        rates = [trial["offered_rps"] for trial in trials]
        heights = _heights(trials, judged_percentile(report), top)
        axes.scatter(
            rates,
            heights,
            marker="X",
            s=48,
            facecolors="white",
            edgecolors=SOFT,
            linewidths=0.9,
            zorder=5,
            label="invalid trial",
        )


def slo_line(axes: Axes, slo: dict[str, Any]) -> None:
    """The objective across a picture whose heights are milliseconds, named at its left end."""
    axes.axhline(slo["ms"], color=INK, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
    axes.annotate(
        f"SLO {slo_words(slo)}",
        (0.005, slo["ms"]),
        (0, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=8.5,
    )


def _draw_slo(axes: Axes, report: Report, top: float) -> None:
    slo_line(axes, report["slo"])
    if any(trial[judged_percentile(report)] is None for trial in report["trials"]):
        axes.annotate(
            "∞",
            (0, top),
            (-7, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center",
            color=SOFT,
        )


def legend(axes: Axes, report: Report, columns: int) -> None:
    """The key above a picture with a line for each configuration."""
    if set(keys_of(report)) - {key_of(report["chosen"]), key_of(report["default"])}:
        axes.plot([], [], color=PALE, linewidth=1.1, marker="o", markersize=4.5, label="other configurations")
    axes.legend(
        frameon=False,
        fontsize=8.5,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        columnspacing=1.4,
    )


def stamp(figure: Figure, report: Report) -> None:
    """What must be read before any number, on the picture itself: it may be shown without the page."""
    random = ["RANDOM WEIGHTS"] * (report["weights"]["kind"] == "random")
    name = accelerator_words(report["accelerator"])
    emulated = [name if figure.get_figwidth() > NARROW else name.replace(" (", "\n(")]
    emulated *= report["accelerator"]["kind"] == "emulated"
    if random or emulated:
        figure.suptitle("\n".join(emulated + random), x=0.01, ha="left", fontsize=9, fontweight="bold")


def tip(axes: Axes, x: float, y: float, words: str) -> None:
    """Words that a browser shows where the pointer is: an unseen disc with a title."""
    axes.plot([x], [y], marker="o", markersize=16, alpha=0, linewidth=0, zorder=9, gid=f"{TIP}{words}")


def _scale(axes: Axes, name: str, top: float) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < top else ""))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(top=top * 1.12)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="#eef0f2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("offered load, requests/s")
    axes.set_ylabel(f"{name} latency, ms")


def _top(report: Report) -> float:
    """Where lost trials stand: above every finite latency and the SLO."""
    finite = [trial[key] for trial in report["trials"] for key in ("p50_ms", "p95_ms", "p99_ms") if trial[key] is not None]
    return float(EDGE * max([*finite, float(report["slo"]["ms"])]))


def _heights(trials: Sequence[Trial], key: str, top: float) -> list[float]:
    return [top if trial[key] is None else float(trial[key]) for trial in trials]


def key_of(config: Trial) -> Key:
    return config["batch_size"], config["max_batch_delay_ms"], config["workers"]


def keys_of(report: Report) -> Iterator[Key]:
    yield from dict.fromkeys(key_of(trial) for trial in report["trials"])


def draw(figure: Figure) -> Drawn:
    """A figure, without what would differ the next time."""
    text = io.StringIO()
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)  # once for both: each form would draw everything to find it
        figure.set_layout_engine(None)
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Drawn(re.sub(rf'<g id="{TIP}([^"]*)">', r"<g><title>\1</title>", text.getvalue()), figure)
