"""Turns a checkpoint into a self-contained Hugging Face repository whose use can be tracked."""

from marline.wrap._wrap import wrap

__all__ = ["wrap"]
