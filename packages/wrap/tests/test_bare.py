"""What a stranger sees who loads a repository with nothing of ours installed."""

from collections import Counter
from typing import Any

Pair = tuple[Any, Any]
LIMITS = {"sam": 1e-5, "mixtral": 1e-6}  # split attention, and experts whose batches are not always in one order
REPORTING = ["one", "boxes", "own", "bert", "gpt2", "vit", "sam", "mixtral"]


def test_the_process_has_no_marline(seen: Pair) -> None:
    assert [] == seen[0].told["marline"]


def test_the_auto_class_is_tracked(seen: Pair) -> None:
    classes = {run: model["class"] for run, model in seen[0].told["models"].items()}

    assert {
        "one": "tracked_tiny.TinyForImageClassification",
        "two": "tracked_tiny.TinyForImageClassification",
        "mobile": "tracked_mobile_v3.MobileV3ForImageClassification",
        "boxes": "tracked_boxes.BoxesModel",
        "own": "tracked_own.OwnForSequenceClassification",
        "bert": "tracked_bert.BertForSequenceClassification",
        "gpt2": "tracked_gpt2.GPT2LMHeadModel",
        "vit": "tracked_vit.ViTForImageClassification",
        "sam": "tracked_sam.SamModel",
        "mixtral": "tracked_mixtral.MixtralForCausalLM",
    } == classes


def test_answers_equal_the_original(seen: Pair) -> None:
    """Tracked, base, plain module inside, saved and loaded again: also with buffers and tensors that are in no checkpoint."""
    for run, model in seen[0].told["models"].items():
        assert all(found <= LIMITS.get(run, 0.0) for found in model["distance"].values()), (run, model["distance"])


def test_folders_of_one_name_are_not_mixed_up_in_either_order_nor_by_two_processes(seen: Pair) -> None:
    forth, back = (process.told["models"] for process in seen)

    assert all(set(models[run]["distance"].values()) == {0.0} for models in (forth, back) for run in ("one", "two"))
    assert forth["one"]["loss"] == back["one"]["loss"] != forth["two"]["loss"] == back["two"]["loss"]


def test_each_outermost_call_is_one_report(seen: Pair) -> None:
    """One for each call of forward, for each `generate` whatever its tokens, and for each that fails."""
    expected = Counter(seen[0].told["tally"]) + Counter(seen[1].told["tally"])

    assert expected == seen[0].reports
    assert 1 == seen[0].reports["gpt2 generate success"]


def test_only_where_a_collector_is_configured_there_is_a_tracker(seen: Pair) -> None:
    assert REPORTING == [run for run, model in seen[0].told["models"].items() if model["reported_by"]]
    assert {"marline-tracker"} == set(seen[0].told["threads"])


def test_an_error_is_the_models_own(seen: Pair) -> None:
    for run, model in seen[0].told["models"].items():
        assert model["base_error"][:2] == model["error"][:2], run
        assert model["base_error"][2].rpartition("/")[2] == model["error"][2].rpartition("/")[2]


def test_loading_says_nothing_but_one_notice_per_reporting_repository(seen: Pair) -> None:
    """The wrapped one, the one it was saved to, and the one that was saved after training."""
    lines = seen[0].log.splitlines()

    notices = Counter(line.partition(" reports its use ")[0] for line in lines if " reports its use " in line)
    models = {run: seen[0].told["models"][run] for run in REPORTING}
    assert {"tiny" if run == "one" else run: 3 if "loss" in model else 2 for run, model in models.items()} == notices
    (other,) = [line for line in lines if " reports its use " not in line]
    assert "`loss_type=None`" in other  # of GPT-2, as transformers has it


def test_state_and_copies_are_those_of_the_base(seen: Pair) -> None:
    for run, model in seen[0].told["models"].items():
        assert model["keys_equal"], run
        assert 1 == len(set(model["copies"]))


def test_labels_come_along_unharmed(seen: Pair) -> None:
    tiny = seen[0].told["models"]["one"]

    assert ("{{ 7 * 7 }}\"'\n", 3) == (tiny["label"], tiny["num_labels"])


def test_a_model_made_from_its_config_keeps_its_own_initialisation(seen: Pair) -> None:
    assert all(model["untouched"] for model in seen[0].told["models"].values())


def test_a_saved_model_is_a_complete_repository_again(seen: Pair) -> None:
    for run, model in seen[0].told["models"].items():
        stem = {"one": "tiny", "two": "tiny", "mobile": "mobile_v3"}.get(run, run)
        needed = {"config.json", "tracker.json", "marline_tracker.py", f"tracked_{stem}.py", f"configuration_{stem}.py"}
        assert needed | {f"modeling_{stem}.py"} <= set(model["saved_files"]), run
    assert {"component_split_attention.py", "marline_components.py"} <= set(seen[0].told["models"]["sam"]["saved_files"])


def test_two_steps_of_training_are_kept_and_the_result_still_reports(seen: Pair) -> None:
    for run, model in seen[0].told["models"].items():
        if "loss" in model:
            assert model["loss"][0] != model["loss"][1], run
            assert 0.0 == model["moved"]
            assert model["reported_by"] == model["still"]


def test_processors_come_along(seen: Pair) -> None:
    models = seen[0].told["models"]

    assert [1, 3, 32, 32] == models["mobile"]["processor"]
    for run in ("bert", "gpt2"):
        before, after = models[run]["tokens"]
        assert before == after
        assert len(set(before)) > 10
