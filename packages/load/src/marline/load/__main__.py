"""`python -m marline.load model=NAME`: this stage alone, in a run folder of its own."""

from marline.core import main
from marline.load import load

main(lambda config, out: load(config.model, config.load, out), "load")
