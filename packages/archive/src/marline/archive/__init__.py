"""Stage 4: the `.mar`, with the shared handler inside; builds one from any files, and reads any back."""

from marline.archive._archive import archive, tuned
from marline.archive._build import Built, build
from marline.archive._inspect import describe, warnings_of
from marline.archive._mar import with_version
from marline.archive._read import Contents, extract, read_mar, requirements_of, version_of
from marline.archive._serving import Serving, from_yaml, to_yaml

__all__ = [
    "Built",
    "Contents",
    "Serving",
    "archive",
    "build",
    "describe",
    "extract",
    "from_yaml",
    "read_mar",
    "requirements_of",
    "to_yaml",
    "tuned",
    "version_of",
    "warnings_of",
    "with_version",
]
