"""`python -m marline.core model=NAME ...`: the merged configuration, each value with its origin."""

import sys

from marline.core import MarlineError, flatten, read_config

try:
    loaded = read_config(sys.argv[1:])
except MarlineError as error:
    print(f"config: {error}", file=sys.stderr)
    raise SystemExit(error.exit_code) from None

lines = [(f"{key} = {value!r}", loaded.origins.get(key, "derived")) for key, value in flatten(loaded.config.model_dump())]
width = max(len(line) for line, _ in lines)
for line, origin in lines:
    print(f"{line:<{width}}  # {origin}")
