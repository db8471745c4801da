import re
import subprocess
import sys
from pathlib import Path


def test_the_snippet_runs_in_an_empty_folder(tmp_path: Path) -> None:
    readme = Path(__file__).parents[1] / "README.md"
    (code,) = re.findall(r"^```python\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True
    )

    assert "['2']\n" == done.stdout
