"""Stage 4: the `.mar`, with the shared handler inside; reads one back."""

from marline.archive._archive import archive, describe, tuned
from marline.archive._mar import Contents, extract, read_mar
from marline.archive._serving import Serving, from_yaml, to_yaml

__all__ = ["Contents", "Serving", "archive", "describe", "extract", "from_yaml", "read_mar", "to_yaml", "tuned"]
