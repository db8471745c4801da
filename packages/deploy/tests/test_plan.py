import re
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from marline.core import Manifest, read_config
from marline.deploy._plan import canaries, dns_label, memory_of, plan_of


@given(model=st.text(min_size=1, max_size=100))
def test_any_name_becomes_a_label_that_leaves_room_for_suffixes(model: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?", dns_label(model))


def test_long_names_that_begin_alike_stay_apart() -> None:
    assert ("digits-cnn", "m-3d-cnn") == (dns_label("digits_cnn"), dns_label("3D_CNN"))
    assert dns_label("a" * 50 + "1") != dns_label("a" * 50 + "2")


@given(replicas=st.integers(1, 1000), percent=st.integers(1, 50))
def test_canaries_get_about_their_share(replicas: int, percent: int) -> None:
    found = canaries(replicas, percent)

    assert found == 1 or abs(found - replicas * percent / (100 - percent)) <= 0.5


def test_more_workers_and_larger_archives_need_more_memory() -> None:
    assert memory_of(1, 10_000) < memory_of(2, 10_000) < memory_of(2, 500_000_000)


def test_a_plan_comes_from_what_was_measured_and_from_the_archive(tuned: Callable[..., Manifest]) -> None:
    config = read_config(["model=digits_cnn", "deploy.image=registry:5000/team/digits", "deploy.replicas=9"]).config

    plan = plan_of(config, tuned(kind="cuda"), "20260102-030405-6789")

    assert ("digits-cnn", "registry:5000/team/digits:20260102-030405-6789") == (plan.name, plan.image)
    assert (1, 2, 9, 1) == (plan.gpus, plan.threads, plan.replicas, plan.canary_replicas)
    assert 1 == replace(plan, serving=replace(plan.serving, threads=1)).threads
    assert (42, 8) == (plan.serving.job_queue_size, plan.serving.batch_size)
    assert (1, 46) == (plan.drain_s, plan.grace_s)
