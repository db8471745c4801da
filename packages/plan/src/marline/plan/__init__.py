"""What if: the load of a day on many replicas of what was tuned, simulated; how many, how slow, and what they cost.

Knows the twin of one replica and a balancer. Knows no server and measures nothing: all it says is said to be simulated.
"""

from marline.plan._plan import plan
from marline.plan._trace import rates
from marline.plan._twin import Level, Twin

__all__ = ["Level", "Twin", "plan", "rates"]
