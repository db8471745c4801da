"""Turn what the stages left behind into a capacity report with pictures, compare runs, and refuse one that is worse.

Knows manifests and numbers. Knows no server, no load test, no torch.
"""

from marline.report._baseline import asked, differences, find
from marline.report._content import StageTime
from marline.report._gate import enforce
from marline.report._notes import Figure
from marline.report._pictures import ACCENT, INK, PALE, SOFT, STYLE, draw, slo_line
from marline.report._render import inline, pages
from marline.report._replicas import replicas
from marline.report._report import report
from marline.report._tables import Row, Table
from marline.report._verdict import summary
from marline.report._words import accelerator_words, configuration, duration, marks, number, percent, slo_words

__all__ = [
    "ACCENT",
    "INK",
    "PALE",
    "SOFT",
    "STYLE",
    "Figure",
    "Row",
    "StageTime",
    "Table",
    "accelerator_words",
    "asked",
    "configuration",
    "differences",
    "draw",
    "duration",
    "enforce",
    "find",
    "inline",
    "marks",
    "number",
    "pages",
    "percent",
    "replicas",
    "report",
    "slo_line",
    "slo_words",
    "summary",
]
