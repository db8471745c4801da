"""Whether a load test measured the server, or itself."""

import numpy as np

from marline.loadtest._load import Load
from marline.loadtest._measurement import Measurement
from marline.loadtest._verdict import percentile

CPU_LIMIT = 0.9
ACHIEVED_LIMIT = 0.99
LITTLE_LIMIT = 0.05
LITTLE_ROWS = 200


def invalid_reason(measurement: Measurement, load: Load, slo_ms: float | None) -> str | None:
    """The first gate this measurement fails, in words, with its figure and limit; None when it is valid.

    Three limits are those of an ordinary harness: nothing unsent, 99 % sent in time, Little's law within 5 %. Two are
    wider, because here the sender shares two cores with the server it loads: a lag p99 of max(2 ms, 5 % of the
    objective) rather than max(1 ms, 2 %), and 90 % of a core rather than 80 %. Refused tokens are our fault, not the model's.
    """
    unsent = int(np.isnan(measurement.sent_s).sum())
    if unsent:
        return f"{unsent} of {measurement.sent_s.size} requests were never sent (limit 0)"
    refused = sum(count for error, count in measurement.errors.items() if error.endswith("InvalidKeyException"))
    if refused:
        return f"{refused} requests were refused for their token (limit 0)"
    lag_ms, lag_limit_ms = percentile(measurement.lag_ms, 99), max(2.0, 0.05 * (slo_ms or 0.0))
    if lag_ms > lag_limit_ms:
        return f"requests were sent late: p99 of the lag {lag_ms:.1f} ms (limit {lag_limit_ms:.1f} ms)"
    if measurement.generator_cpu >= CPU_LIMIT:
        return f"the sender was busy: {measurement.generator_cpu:.2f} of a core (limit {CPU_LIMIT:.2f})"
    in_time = measurement.sent_s <= load.warmup_s + load.seconds
    if in_time.mean() < ACHIEVED_LIMIT and (~in_time).sum() > 1:  # the last may be due a moment before the end
        return f"only {in_time.mean():.1%} of the requests were sent within the time (limit {ACHIEVED_LIMIT:.0%})"
    return _little(measurement)


def _little(measurement: Measurement) -> str | None:
    """A check of our books: Little's law holds on every path, overload included (Little, Operations Research 9, 1961)."""
    counted, by_law = measurement.mean_in_flight, measurement.little_in_flight
    if measurement.total <= LITTLE_ROWS or abs(counted - by_law) <= LITTLE_LIMIT * by_law:
        return None
    return f"{counted:.2f} requests were in flight, by Little's law {by_law:.2f} should have been (limit {LITTLE_LIMIT:.0%})"
