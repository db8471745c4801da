import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from marline.core import write_json

Make = Callable[..., Path]
CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_command_renders_again_from_the_newest_finished_stages(make: Make, tmp_path: Path) -> None:
    before = make()
    shutil.copytree(CONFIGS, tmp_path / "configs")
    words = ["model=resnet50", f"artifacts={tmp_path}", "report.target_rps=500"]

    done = subprocess.run(
        [sys.executable, "-m", "marline.report", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    folders = [file.parent for file in tmp_path.glob("resnet50/*/report/report.json") if file.parent != before]
    assert (0, "") == (done.returncode, done.stderr)
    again = json.loads((folders[0] / "report.json").read_text())
    assert (500.0, 27) == (again["replicas"]["target_rps"], again["replicas"]["plan"][0]["replicas"])
    assert {("20260302-041107-9c1e", True)} == {(stage["run"], stage["cached"]) for stage in again["stages"]}


def test_stages_that_do_not_belong_together_are_warned_about(make: Make, tmp_path: Path) -> None:
    before = make()
    file = before.parent / "archive" / "manifest.json"
    manifest = json.loads(file.read_text())
    write_json(file, manifest | {"facts": manifest["facts"] | {"sha256": "00" * 32}})
    shutil.copytree(CONFIGS, tmp_path / "configs")

    words = ["model=resnet50", f"artifacts={tmp_path}"]
    subprocess.run([sys.executable, "-m", "marline.report", *words], cwd=tmp_path, check=True, timeout=60)

    folder = next(file.parent for file in tmp_path.glob("resnet50/*/report/report.md") if file.parent != before)
    assert "deploy (run 20260302-041107-9c1e) worked on another archive" in (folder / "report.md").read_text()
