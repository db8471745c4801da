"""What a stranger sees who loads a repository with nothing of ours installed."""

from typing import Any

Pair = tuple[Any, Any]


def test_the_process_has_no_marline(seen: Pair) -> None:
    assert [] == seen[0].told["marline"]


def test_the_auto_class_is_tracked(seen: Pair) -> None:
    classes = [model["class"] for model in seen[0].told["models"]]

    tiny = "tracked_tiny.TrackedTinyForImageClassification"
    assert [tiny, tiny, "tracked_mobile_v3.TrackedMobileV3ForImageClassification"] == classes


def test_answers_equal_the_plain_module(seen: Pair) -> None:
    """Tracked, base, plain module inside, saved and loaded again: also with buffers and tensors that are in no checkpoint."""
    for model in seen[0].told["models"]:
        assert [True] * 4 == model["equal"], model["class"]


def test_folders_of_one_name_are_not_mixed_up_in_either_order_nor_by_two_processes(seen: Pair) -> None:
    forth, back = (process.told["models"] for process in seen)

    assert all(model["equal"] == [True] * 4 for model in (*forth, *back))
    assert forth[0]["loss"] == back[1]["loss"] != forth[1]["loss"] == back[0]["loss"]


def test_each_outermost_call_is_one_report(seen: Pair) -> None:
    """Of the reporting model: a good and a bad call, one after saving, one for the loss; twice, by two processes."""
    outcomes = sorted(report["status"] for report in seen[0].reports)

    assert ["fail"] * 2 + ["success"] * 6 == outcomes
    assert {"forward"} == {report["method"] for report in seen[0].reports}
    assert 1 == len({report["machine_id"] for report in seen[0].reports})


def test_only_where_a_collector_is_configured_there_is_a_tracker(seen: Pair) -> None:
    assert [True, False, False] == [model["reported_by"] for model in seen[0].told["models"]]
    assert ["marline-tracker"] * 2 == seen[0].told["threads"]  # of the repository, and of the one it was saved to


def test_an_error_is_the_modules_own(seen: Pair) -> None:
    for model in seen[0].told["models"]:
        assert model["error"].startswith("RuntimeError from ")
        assert "/torch/nn/" in model["error"]


def test_loading_says_nothing_but_one_notice_per_reporting_repository(seen: Pair) -> None:
    lines = seen[0].log.splitlines()

    assert ["tiny reports its use"] * 2 == [line[:20] for line in lines]


def test_another_model_in_the_process_is_not_tracked(seen: Pair) -> None:
    assert "transformers.models.resnet.modeling_resnet.ResNetForImageClassification" == seen[0].told["other"]


def test_signature_state_and_copies_are_those_of_the_base(seen: Pair) -> None:
    for model in seen[0].told["models"]:
        assert model["signatures_equal"]
        assert model["keys_equal"]
    assert [["tiny", "tiny"], ["tiny", "tiny"], ["mobile-v3", "mobile-v3"]] == [
        model["copies"] for model in seen[0].told["models"]
    ]


def test_labels_come_along_unharmed(seen: Pair) -> None:
    tiny = seen[0].told["models"][0]

    assert ("{{ 7 * 7 }}\"'\n", 3) == (tiny["label"], tiny["num_labels"])


def test_a_model_made_from_its_config_keeps_its_own_initialisation(seen: Pair) -> None:
    assert all(model["untouched"] for model in seen[0].told["models"])


def test_a_saved_model_is_a_repository_again(seen: Pair) -> None:
    config = seen[0].told["models"][0]["again"]

    assert ["TinyForImageClassification"] == config["architectures"]
    assert "tracked_tiny.TrackedTinyForImageClassification" == config["auto_map"]["AutoModelForImageClassification"]


def test_the_image_processor_comes_along(seen: Pair) -> None:
    assert [None, None, [1, 3, 32, 32]] == [model["processor"] for model in seen[0].told["models"]]
