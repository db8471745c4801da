"""Turns a checkpoint into a self-contained Hugging Face repository whose use can be tracked."""

from marline.wrap._wrap import wrap
from marline.wrap.components import ComponentError, swap_components

__all__ = ["ComponentError", "swap_components", "wrap"]
