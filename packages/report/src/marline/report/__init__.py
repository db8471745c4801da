"""Turn what the stages left behind into a capacity report: JSON, Markdown, HTML and one picture.

Knows manifests and numbers. Knows no server, no load test, no torch.
"""

from marline.report._baseline import asked, differences, find
from marline.report._content import StageTime
from marline.report._gate import enforce
from marline.report._replicas import replicas
from marline.report._report import report
from marline.report._verdict import summary

__all__ = ["StageTime", "asked", "differences", "enforce", "find", "replicas", "report", "summary"]
