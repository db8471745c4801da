from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from marline.core import STAGES, Config, RequestError, flatten, known_models, located, project_root, read_config

ONE_PROJECT = [HealthCheck.function_scoped_fixture]  # read_config writes nothing, so all examples may share one folder


def refused(*words: str) -> str:
    with pytest.raises(RequestError) as error:
        read_config(words)
    assert 2 == error.value.exit_code
    return str(error.value)


def test_each_layer_wins_over_the_one_before_it_and_leaves_its_name(project: Path) -> None:
    (project / "configs" / "models" / "own.yaml").write_text(
        'load: {source: "torchvision:resnet18"}\ntune: {trial_s: 4, steps: 6}\n'
    )
    (project / "configs" / "profiles" / "brief.yaml").write_text("tune: {trial_s: 3, steps: 3, confirm_s: 8}\n")

    loaded = read_config(["model=own", "profile=brief", "tune.steps=2"])

    assert ("torchvision:resnet18", 3, 2, 8) == (
        loaded.config.load.source,
        loaded.config.tune.trial_s,
        loaded.config.tune.steps,
        loaded.config.tune.confirm_s,
    )
    assert {
        "load.source": "configs/models/own.yaml",
        "load.seed": "configs/default.yaml",
        "tune.trial_s": "configs/profiles/brief.yaml",
        "tune.steps": "the command line",
        "model": "the command line",
    }.items() <= loaded.origins.items()


def test_every_value_of_every_known_model_has_an_origin(project: Path) -> None:
    (project / "models").symlink_to(Path(__file__).parents[3] / "models")

    for name in known_models(project):
        loaded = read_config([f"model={name}"])
        keys = {key for key, _ in flatten(loaded.config.model_dump())}

        assert set() == keys - loaded.origins.keys() - {"load.source"}


def test_a_later_word_wins_over_an_earlier_one(project: Path) -> None:
    assert 7 == read_config(["model=resnet50", "tune.slo_ms=5", "tune.slo_ms=7"]).config.tune.slo_ms


def test_lists_and_numbers_are_typed_and_the_result_is_frozen(project: Path) -> None:
    config = read_config(["model=resnet50", "tune.batch_sizes=[3,5]", "tune.slo_ms=12.5", "load.init_kwargs.width=2"]).config

    assert ((3, 5), 12.5, {"width": 2}) == (config.tune.batch_sizes, config.tune.slo_ms, config.load.init_kwargs)
    with pytest.raises(ValidationError, match="frozen"):
        config.tune.workers = (2,)


def test_a_source_works_in_place_of_a_name(project: Path) -> None:
    loaded = read_config(["model=torchvision:resnet18", "load.seed=5"])

    assert ("torchvision_resnet18", "torchvision:resnet18", 5) == (
        loaded.config.model,
        loaded.config.load.source,
        loaded.config.load.seed,
    )
    assert "the command line" == loaded.origins["load.source"]


def test_the_project_is_found_from_a_folder_inside_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "er")

    assert project == project_root()


def test_outside_a_project_the_request_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert "no configs/default.yaml here or above; run this in the clone" in refused("model=resnet50")


def test_a_password_in_an_address_is_not_repeated(project: Path) -> None:
    told = refused("model=resnet50", "artifacts_url=s3://AKID:Never/Shown@bucket/prefix")

    assert "artifacts_url = 's3://***@bucket/prefix'" in told
    assert "AKID" not in told
    assert "Shown" not in told


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("model=nope", ["model=nope", "digits_cnn, digits_sklearn, efficientnet_lite0", "model=torchvision:resnet18"]),
        ("model=resnet51", ["model=resnet51", "did you mean 'resnet50'?"]),
        ("profile=smok", ["profile=smok", "did you mean 'smoke'?"]),
        ("tune.slo_mss=3", ["'tune.slo_mss'", "the command line", "did you mean 'tune.slo_ms'?"]),
        ("load.weights=/no/such.safetensors", ["'/no/such.safetensors'", "no such file of weights", "load.weights=auto"]),
        ("load.samples=/no/such", ["'/no/such'", "no such file or folder", "load.samples=models/"]),
        (
            "artifacts_url=s3://Bucket",
            ["artifacts_url = 's3://Bucket'", "not of this form", "artifacts_url=s3://team-models/marline"],
        ),
        ("artifacts_url=s3://bucket/a/../b", ["artifacts_url", "credentials come from AWS's own variables"]),
        ("artifacts_url=s3://bucket?region=x", ["artifacts_url", "artifacts_url=s3://team-models/marline"]),
        ("artifacts_url=file:///a/../b", ["artifacts_url", "file:///FOLDER"]),
        ("artifacts_url=https://bucket", ["artifacts_url", "s3://BUCKET/PREFIX"]),
        ("archive.handler=no.py", ["'no.py'", "no such file", "archive.handler=models/"]),
        ("model", ["'model'", "not key=value", "model=resnet50"]),
        ("model=", ["'model='", "not key=value", "model=resnet50"]),
        ("tune.slo_ms", ["'tune.slo_ms'", "not key=value", "tune.slo_ms=200"]),
        ("--fast", ["'--fast'", "not key=value", "nox -s config"]),
        ("tune.slo_ms=-5", ["tune.slo_ms = -5", "greater than 0", "tune.slo_ms=200"]),
        ("tune.slo_ms=abc", ["tune.slo_ms = 'abc'", "valid number", "tune.slo_ms=200"]),
        ("tune.slo_ms=.inf", ["tune.slo_ms = inf", "finite", "tune.slo_ms=200"]),
        ("load.max_shard_size=0.0GB", ["load.max_shard_size = '0.0GB'", "load.max_shard_size=5GB"]),
        ("export.method=onnx", ["export.method = 'onnx'", "'hybrid' or 'none'", "export.method=auto"]),
        ("export.whole=configs/default.py:Whole", ["export.whole", "there is no such file"]),
        ("export.whole=Whole", ["export.whole = 'Whole'", "export.whole=models/gpt2_tiny/generate.py:FullModel"]),
        ("export.dtype=int8", ["export.dtype = 'int8'", "'bfloat16' or 'float16'", "export.dtype=float32"]),
        ("export.fuse=sometimes", ["export.fuse", "export.fuse=auto"]),
        ("export.channels_last=3", ["export.channels_last", "export.channels_last=auto"]),
        ("export.calls={generate: [{top_k: [1]}]}", ["export.calls", "export.calls={generate:"]),
        ("export.calls.generate=3", ["export.calls", "export.calls={generate:"]),
        ("export.batch_sizes=[]", ["export.batch_sizes = []", "export.batch_sizes=[1,2,3,8,17]"]),
        ("export.batch_sizes=[0]", ["export.batch_sizes", "greater than or equal to 1", "export.batch_sizes=[1,2,3,8,17]"]),
        ("tune.batch_sizes=[1]", ["tune.batch_sizes = [1]", "greater than or equal to 2", "tune.batch_sizes=[2,4,8]"]),
        ("tune=5", ["tune = 5", "TuneConfig"]),
        ("tune.objective=latency", ["tune.objective = 'latency'", "tune.at_rps=REQUESTS_PER_SECOND is missing"]),
        ("tune.workers=[0]", ["tune.workers = [0]", "greater than or equal to 1"]),
        ("accelerator=cudaa", ["accelerator = 'cudaa'", "did you mean 'cuda'?"]),
        ("accelerator=rn50_t4_pytorch_eager_am", ["did you mean 'rn50_t4_pytorch_eager_amp'?"]),
        ("wrap.collector_url=http://user:secret@host/", ["wrap.collector_url", "wrap.collector_url=null"]),
        ("fresh=tunee", ["fresh = 'tunee'", "fresh=tune"]),
        ("run=../../etc", ["run = '../../etc'", "run=2026"]),
        ("load.source=!!python/object/apply:os.getcwd []", ["cannot be read", "python/object"]),
        ("artifacts=*anchor", ["'model=resnet50 artifacts=*anchor'", "cannot be read"]),
    ],
)
def test_a_wrong_word_is_refused_with_value_origin_and_remedy(project: Path, word: str, told: list[str]) -> None:
    words = [word] if word.startswith("model") else ["model=resnet50", word]

    message = refused(*words)

    assert [] == [part for part in told if part not in message]
    assert word.startswith(("model=", "profile=")) or "the command line" in message


def test_a_hybrid_without_its_whole_is_refused(project: Path) -> None:
    message = refused("model=resnet50", "export.method=hybrid")

    assert "export.whole = None from configs/default.yaml is refused" in message
    assert "export.method=hybrid needs the class to script around the traced model" in message


def test_a_whole_that_is_no_file_is_refused(project: Path) -> None:
    message = refused("model=resnet50", "export.method=hybrid", "export.whole=models/no.py:Whole")

    assert "export.whole = 'models/no.py:Whole' from the command line is refused" in message
    assert "there is no such file" in message


def test_settings_of_an_export_are_typed(project: Path) -> None:
    (project / "whole.py").write_text("class Whole: ...\n")
    words = [
        "method=hybrid",
        "whole=whole.py:Whole",
        "preserve=[generate]",
        "fuse=false",
        "channels_last=auto",
        "dtype=bfloat16",
    ]

    calls = "calls={generate: [{top_k: 1, temperature: 0.0, sample: true, how: greedy}]}"
    config = read_config(["model=resnet50", *(f"export.{word}" for word in [*words, calls])]).config.export

    assert ("hybrid", "whole.py:Whole", ("generate",), "bfloat16") == (
        config.method,
        config.whole,
        config.preserve,
        config.dtype,
    )
    assert (False, "auto") == (config.fuse, config.channels_last)
    assert [("top_k", 1, int), ("temperature", 0.0, float), ("sample", True, bool), ("how", "greedy", str)] == [
        (name, value, type(value)) for name, value in config.calls["generate"][0].items()
    ]


def test_requirements_are_off_until_something_is_to_be_installed(project: Path) -> None:
    (project / "needs.txt").write_text("einops==0.8.0\n")

    off = read_config(["model=resnet50", "archive.requirements=off"]).config.archive
    on = read_config(["model=resnet50", "archive.requirements=install", "archive.requirements_file=needs.txt"]).config.archive

    assert [("off", None), ("install", "needs.txt")] == [(one.requirements, one.requirements_file) for one in (off, on)]
    with pytest.raises(RequestError, match=r"archive\.requirements = 'install' .*archive\.requirements_file names none"):
        read_config(["model=resnet50", "archive.requirements=install"])


@pytest.mark.parametrize("word", ["archive.extra_files=[no.py]", "archive.requirements_file=no.txt"])
def test_a_file_for_the_archive_that_is_none_is_refused(project: Path, word: str) -> None:
    with pytest.raises(RequestError, match=r"no\.\w+.* is refused: there is no"):
        read_config(["model=resnet50", word])


def test_no_model_at_all_is_refused_with_the_known_ones(project: Path) -> None:
    assert "write model=NAME with one of detr_tiny, digits_cnn, digits_sklearn, efficientnet_lite0" in refused()


def test_every_mistake_is_named_at_once(project: Path) -> None:
    message = refused("model=resnet50", "tune.slo_ms=-5", "tune.stepz=3", "report.headroom=2")

    assert ["report.headroom", "tune.slo_ms", "'tune.stepz'"] == [line.split(" ")[0] for line in message.splitlines()]


def test_a_mistake_in_a_file_names_the_file(project: Path) -> None:
    (project / "configs" / "models" / "resnet50.yaml").write_text("tune: {steps: -1}\nload: {source: 'torchvision:resnet50'}\n")

    assert "tune.steps = -1 from configs/models/resnet50.yaml is refused" in refused("model=resnet50")


def test_a_file_that_is_no_yaml_is_named(project: Path) -> None:
    file = project / "configs" / "models" / "resnet50.yaml"
    file.write_text("load: {source: [")

    assert f"{file} cannot be read" in refused("model=resnet50")


def test_a_missing_default_is_named(project: Path) -> None:
    file = project / "configs" / "default.yaml"
    file.write_text(file.read_text().replace("keep_runs: 10\n", ""))

    assert "keep_runs is not set; write for example keep_runs=10" == refused("model=resnet50")


def test_the_environment_cannot_be_read_through_a_value(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")

    literal = read_config(["model=resnet50", "load.init_kwargs.name=${oc.env:SECRET}"])
    message = refused("model=resnet50", "load.source=${oc.env:SECRET}")

    assert {"name": "${oc.env:SECRET}"} == literal.config.load.init_kwargs
    assert "'${oc.env:SECRET}'" in message
    assert "hunter2" not in message


def test_a_source_beside_a_load_section_that_is_none_is_refused(project: Path) -> None:
    assert "load = 3 from the command line is refused" in refused("model=torchvision:resnet18", "load=3")


KEYS = st.sampled_from(
    [*Config.model_fields, *(f"{stage}.x" for stage in STAGES), "tune.slo_ms", "load.source", "load.init_kwargs.a.b", "x"]
)
VALUES = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="{}[]:,.&*!?|>'\"%@`#- $~0ae\n", max_size=8),
    st.sampled_from(["null", "[]", "{}", "{a: 1}", "1", "-1.5", ".nan", "???", "${model}", "2020-01-01", "0x1f", "yes", "a:b"]),
)


@given(model=st.one_of(st.just("resnet50"), VALUES), words=st.lists(st.tuples(KEYS | st.text(max_size=6), VALUES), max_size=3))
@example(model="torchvision:resnet18", words=[("load", "3")])
@example(model="resnet50", words=[("tune.slo_ms", "[")])
@example(model="resnet50", words=[("tune", "${"), ("tune.slo_ms", "3")])
@settings(suppress_health_check=ONE_PROJECT, deadline=None, max_examples=60)
def test_any_words_make_a_valid_configuration_or_a_request_error(
    project: Path, model: str, words: list[tuple[str, str]]
) -> None:
    with suppress(RequestError):
        loaded = read_config([f"model={model}", *(f"{key}={value}" for key, value in words)])
        assert loaded.config == Config.model_validate(loaded.config.model_dump())


@given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.text("ab", min_size=1), inner, min_size=1), max_leaves=8))
def test_flatten_keeps_every_leaf(values: object) -> None:
    tree = {"root": values}

    flat = dict(flatten(tree))

    for key, leaf in flat.items():
        place: object = tree
        for part in key.split("."):
            assert isinstance(place, Mapping)
            place = place[part]
        assert leaf == place


def test_every_setting_says_what_it_is_and_gives_an_example() -> None:
    silent = [key for key, field in _fields(Config) if not field.description or not field.examples]

    assert [] == silent


def _fields(model: type[BaseModel], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    found: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _fields(inner, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("hf:org/some-model@0123456789012345678901234567890123456789", "hf_org_some_model"),
        ("./configs", "local_configs"),
        ("timm:resnet18.a1_in1k", "timm_resnet18_a1_in1k"),
        ("package:omegaconf/resolvers", "package_omegaconf_resolvers"),
        ("torchscript:./mine/model.pt", "torchscript_model_pt"),
        ("python:./mine/model.py:build", "python_model_py_build"),
        ("handler:./mine/handler.py", "handler_mine_handler_py"),
        ("./my folder", "local_my_folder"),
    ],
)
def test_a_source_in_place_of_a_name_names_the_model(project: Path, model: str, name: str) -> None:
    loaded = read_config([f"model={model}"])

    assert (name, model) == (loaded.config.model, loaded.config.load.source)


def test_a_file_inside_an_installed_package_is_named_without_a_path_of_this_machine(project: Path) -> None:
    assert located("package:omegaconf/__init__.py").is_file()
    assert not located("package:no_such_package/file").exists()
    assert not located("package:os.path/file").exists()
    assert Path("here/file") == located("here/file")


def test_weights_must_be_a_file_of_a_known_kind_wherever_they_lie(project: Path) -> None:
    text = refused("model=torchvision:resnet18", "load.weights=package:omegaconf/no.pt")

    assert "load.weights = 'package:omegaconf/no.pt' from the command line is refused" in text


def test_a_source_that_is_a_handler_is_the_handler(project: Path) -> None:
    (project / "mine.py").touch()

    assert "no/such.py" == read_config(["model=handler:no/such.py"]).config.handler
    assert "mine.py" == read_config(["model=resnet50", "archive.handler=mine.py"]).config.handler
    assert read_config(["model=resnet50"]).config.handler is None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "archive.handler=mine.py",
            r"archive\.handler = 'mine\.py' from the command line has no effect, because load\.source=",
        ),
        (
            "archive.explain=true",
            r"archive\.explain = true from the command line needs an eager model, and load\.source=handler:",
        ),
        ("accelerator=rn50_t4_pytorch_eager_amp", r"'rn50_t4_pytorch_eager_amp' from the command line cannot be emulated for"),
    ],
)
def test_what_a_handler_from_scratch_cannot_have_is_refused(project: Path, word: str, message: str) -> None:
    (project / "mine.py").touch()

    with pytest.raises(RequestError, match=message):
        read_config(["model=handler:no/such.py", word])


def test_no_tokens_is_refused_with_its_origin_until_it_is_named(project: Path) -> None:
    public = ["model=resnet50", "deploy.tokens=false", "deploy.bind=0.0.0.0"]

    assert (
        "deploy.tokens = false from the command line is unsafe: whoever reaches a port of the server may ask it, and register "
        "code with it, and deploy.bind = 0.0.0.0 from the command line lets the network ask it; write deploy.tokens=true, or "
        "deploy.allow_unsafe=[no_tokens,public_without_tokens] if that is meant"
    ) == refused(*public)
    assert "lets the network ask it" in refused(*public, "deploy.allow_unsafe=[no_tokens]")
    assert not read_config([*public, "deploy.allow_unsafe=[no_tokens,public_without_tokens]"]).config.deploy.tokens
    assert not read_config(["model=resnet50", "deploy.tokens=false", "deploy.allow_unsafe=[no_tokens]"]).config.deploy.tokens


def test_a_port_is_fixed_once(project: Path) -> None:
    assert (8080, 8081) == read_config(["model=resnet50", "deploy.ports=[8080,8081]"]).config.deploy.ports
    assert "a port is named twice" in refused("model=resnet50", "deploy.ports=[8080,8080]")
    assert "deploy.ports" in refused("model=resnet50", "deploy.ports=[70000]")
