"""`python -m marline.export model=NAME`: this stage alone, on the newest finished stages before it."""

from marline.core import main, newest, project_root
from marline.export import export
from marline.handler import handler_of

main(
    lambda config, out: export(
        config.model,
        config.export,
        newest(project_root() / config.artifacts, config.model, "load"),
        newest(project_root() / config.artifacts, config.model, "wrap"),
        handler_of(project_root(), config.model, config.load.task, config.archive.handler),
        out,
    ),
    "export",
)
