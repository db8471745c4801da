"""Asks a Java which version it is."""

import subprocess
from pathlib import Path


def java_version(home: Path) -> str:
    """The version line of `java -version`, for example `openjdk version "25.0.2" 2026-01-20`."""
    done = subprocess.run([str(home / "bin" / "java"), "-version"], capture_output=True, text=True, timeout=30, check=True)
    return done.stderr.splitlines()[0]
