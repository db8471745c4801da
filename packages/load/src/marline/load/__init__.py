"""Stage 1: any supported source becomes a checkpoint folder with sample inputs."""

from marline.load._files import local_files
from marline.load._load import load

__all__ = ["load", "local_files"]
