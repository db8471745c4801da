"""`python -m marline.plan._compiling`: compiles the loops of a server and of a fleet, which the first tuning would wait for."""

from marline.plan._twin import Twin
from marline.tune import Point, Service, Setting


def main() -> int:
    """Play one level; what is compiled is kept beside the code by numba."""
    points = (Point(1, 1, 20.0, 20.0), Point(2, 1, 30.0, 30.0))
    service = Service(points=points, batch_ms=1.0, request_ms=0.1, http_ms=1.0, shared=False)
    twin = Twin(service=service, setting=Setting(2, 5, 1), slo_ms=150.0, percentile=99.0, balancing="least_outstanding")
    twin.level(100.0, 4)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
