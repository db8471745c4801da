"""For every test of every package."""

import signal

# A shell that starts us in the background ignores Ctrl-C for us, and what we start inherits that.
# Tests interrupt what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
