"""What can be configured: one frozen section per stage.

Nothing here has a default; every default is a line of `configs/default.yaml`, so each value has an origin one can point
at. Field descriptions and examples are part of the error messages: they are the remedy a user reads.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from marline.core._located import located
from marline.core._rules import METRICS, parse_rules

Stage = Literal["load", "wrap", "export", "archive", "deploy", "tune", "report"]
STAGES: tuple[Stage, ...] = ("load", "wrap", "export", "archive", "deploy", "tune", "report")

Task = Literal[
    "auto",
    "audio-classification",
    "automatic-speech-recognition",
    "feature-extraction",
    "fill-mask",
    "image-classification",
    "image-feature-extraction",
    "image-segmentation",
    "mask-generation",
    "object-detection",
    "question-answering",
    "text-classification",
    "text-generation",
    "token-classification",
    "video-classification",
    "voice-activity-detection",
]  # Hugging Face's names


class Section(BaseModel):
    """Frozen, and refuses keys it does not know and numbers that are none."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class LoadConfig(Section):
    """Where the model comes from."""

    source: str = Field(
        pattern=r"^(torchvision:\w+|timm:[\w.\-]+|python:[^:]+\.py:\w+|torchscript:\S+\.(pt|pth|jit)|handler:[^:]+\.py|hf:[\w.\-]+(/[\w.\-]+)?(@\S+)?"
        r"|package:\w+/.*|\.{0,2}/.*)$",
        description="torchvision:NAME, timm:NAME, hf:ORG/NAME@REVISION, a folder (./NAME, or package:NAME/FOLDER inside an "
        "installed Python package), torchscript:FILE.pt, python:FILE.py:FUNCTION for code of your own, or handler:FILE.py for "
        "a handler from scratch, which brings its model itself",
        examples=["torchvision:resnet50"],
    )
    weights: str = Field(
        description="auto, published, random, or a file of weights that exists: .safetensors, or with load.allow_pickle=true "
        "one of .pt, .pth, .bin",
        examples=["auto"],
    )
    seed: int = Field(ge=0, description="seeds random weights", examples=[0])
    task: Task = Field(description="what the model answers; auto asks the source", examples=["image-classification"])
    init_kwargs: dict[str, Any] = Field(description="keyword arguments of the source's function or class", examples=["{}"])
    torch_dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        description="auto keeps the type in which the weights were saved", examples=["auto"]
    )
    device_map: str | dict[str, int | str] | None = Field(
        description="where Hugging Face's accelerate puts the layers, null for the CPU", examples=["auto"]
    )
    offload_folder: str | None = Field(description="takes layers that device_map sends to disk", examples=["null"])
    max_shard_size: str = Field(
        pattern=r"^(\d*[1-9]\d*(\.\d+)?|\d+\.\d*[1-9]\d*)(KB|MB|GB)$", description="larger weights are split", examples=["5GB"]
    )
    trust_remote_code: bool = Field(
        description="run the repository's own Python code; needs a 40-hex revision or a local folder", examples=["false"]
    )
    allow_pickle: bool = Field(description="read pickled weights, through torch's weights_only=True", examples=["false"])
    rename: dict[str, str] = Field(
        description="regular expressions and their replacements, applied in order to the keys of foreign weights",
        examples=["{}"],
    )
    samples: str | None = Field(
        description="a file, or a folder of files, to use in place of the shipped samples",
        examples=["models/digits_cnn/samples"],
    )

    @field_validator("weights")
    @classmethod
    def _weights_exist(cls, value: str) -> str:
        if value in {"auto", "published", "random"}:
            return value
        if not value.endswith((".safetensors", ".pt", ".pth", ".bin")) or not located(value).is_file():
            raise ValueError("there is no such file of weights")
        return value

    @field_validator("samples")
    @classmethod
    def _samples_exist(cls, value: str | None) -> str | None:
        if value is not None and not located(value).exists():
            raise ValueError("there is no such file or folder")
        return value


class Component(Section):
    """One kind of layer to replace."""

    path: str = Field(description="names of layers, * for one part of a name", examples=["vision_encoder.layers.*.attn"])
    layer: str = Field(
        pattern=r"^[^:]+\.py:\w+$", description="FILE.py:CLASS", examples=["models/sam_tiny/split.py:SplitAttention"]
    )
    kwargs: dict[str, Any] = Field(default={}, description="arguments of the class that cannot be found", examples=["{}"])


class WrapConfig(Section):
    """How the published repository reports its use."""

    collector_url: str | None = Field(
        pattern=r"^https?://[^/\s@]+(/\S*)?$", description="an http(s) address, or null to report nothing", examples=["null"]
    )
    detail: Literal["minimal", "full"] = Field(description="minimal, or full to add error texts", examples=["minimal"])
    sample_rate: float = Field(gt=0, le=1, description="the share of calls that is reported", examples=[1.0])
    methods: tuple[str, ...] = Field(
        description="methods to track beside forward and generate, where the model has them", examples=["[get_text_features]"]
    )
    components: tuple[Component, ...] = Field(description="layers to replace by layers of your own", examples=["[]"])
    push: bool = Field(description="upload the repository to the hub", examples=["false"])
    repository: str | None = Field(
        pattern=r"^[\w.\-]+/[\w.\-]+$", description="ORG/NAME on the hub, for wrap.push=true", examples=["me/my-model"]
    )
    private: bool = Field(description="whether the uploaded repository is private", examples=["true"])


class ServedCall(Section):
    """The method that requests call in place of the model itself."""

    method: str = Field(pattern=r"^[A-Za-z]\w*$", description="its name", examples=["generate"])
    parameters: dict[str, bool | int | float | str] = Field(
        default={}, description="what a request may set, with defaults", examples=["{max_new_tokens: 20}"]
    )
    most: dict[str, int | float] = Field(default={}, description="bounds of numbers", examples=["{max_new_tokens: 256}"])


class ExportConfig(Section):
    """How TorchScript is made and how equal it must be."""

    method: Literal["auto", "script", "trace", "hybrid", "none"] = Field(
        description="auto tries script, then trace; hybrid scripts export.whole around a traced model; none serves it eagerly",
        examples=["auto"],
    )
    whole: str | None = Field(
        pattern=r"^[^:]+\.py:\w+$",
        description="FILE.py:CLASS of your own around the model",
        examples=["models/gpt2_tiny/generate.py:FullModel"],
    )
    preserve: tuple[str, ...] = Field(description="methods and attributes that freezing keeps", examples=["[generate]"])
    calls: dict[str, list[dict[str, bool | int | float | str]]] = Field(
        description="calls of other methods whose answers are compared under one seed",
        examples=["{generate: [{max_new_tokens: 8, temperature: 0.0, top_k: 1}]}"],
    )
    serve: ServedCall | None = Field(
        description="a method that answers requests in place of the model itself",
        examples=["{method: generate, parameters: {max_new_tokens: 20}, most: {max_new_tokens: 256}}"],
    )
    random: bool = Field(description="the model means to draw random numbers", examples=["false"])
    dtype: Literal["float32", "bfloat16", "float16"] = Field(description="type of weights and arithmetic", examples=["float32"])
    channels_last: bool | Literal["auto"] = Field(description="auto keeps it where it is faster here", examples=["auto"])
    fuse: bool | Literal["auto"] = Field(description="auto fuses operators after loading where it is faster", examples=["auto"])
    fold: bool = Field(description="scaling and normalising pixels happens in the graph, which takes uint8", examples=["false"])
    atol: float = Field(gt=0, description="largest absolute difference to the eager model", examples=[1e-4])
    rtol: float = Field(gt=0, description="largest relative difference to the eager model", examples=[1e-3])
    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, description="batch sizes at which parity is proven", examples=["[1,2,3,8,17]"]
    )

    @field_validator("whole")
    @classmethod
    def _hybrid_has_a_whole(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("method") == "hybrid" and value is None:
            raise ValueError("export.method=hybrid needs the class to script around the traced model")
        if value is not None and not located(value.rpartition(":")[0]).is_file():
            raise ValueError("there is no such file")
        return value


class ArchiveConfig(Section):
    """What goes into the archive and its model-config.yaml."""

    version: str = Field(pattern=r"^\d+(\.\d+)*$", description="the model version TorchServe shows", examples=["1.0.0"])
    handler: str | None = Field(
        description="a handler file that calls handler_factory; null takes models/NAME/handler.py, or the task's",
        examples=["models/digits_cnn/handler.py"],
    )
    explain: bool = Field(
        description="carry the eager model too, so that /explanations can be answered with Captum", examples=["false"]
    )
    batch_size: int = Field(ge=1, le=1024, description="batchSize before tuning", examples=[1])
    max_batch_delay_ms: int = Field(ge=1, le=60000, description="maxBatchDelay before tuning", examples=[100])
    workers: int = Field(ge=1, le=64, description="minWorkers and maxWorkers", examples=[1])
    response_timeout_s: int = Field(ge=1, description="a worker silent for longer is replaced", examples=[60])
    startup_timeout_s: int = Field(ge=1, description="a worker must load its model within this", examples=[120])
    job_queue_size: int = Field(ge=1, description="requests that may wait per model", examples=[1000])
    device_ids: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        description="GPUs for the workers, in turn, by their places among those the server sees", examples=["[0,1]"]
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        description="the model begins when so many of a batch are preprocessed; for accelerators", examples=["null"]
    )
    extra_files: tuple[str, ...] = Field(
        description="files, folders, tars and zips of code and data that the handler imports or opens", examples=["[]"]
    )
    requirements_file: str | None = Field(description="what the handler imports, as name==version lines", examples=["null"])
    requirements: Literal["off", "install"] = Field(
        description="install has TorchServe install archive.requirements_file for this model alone", examples=["off"]
    )

    @field_validator("handler", "requirements_file")
    @classmethod
    def _file_exists(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).is_file():
            raise ValueError("there is no such file")
        return value

    @field_validator("device_ids")
    @classmethod
    def _said_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) != len(set(value)):
            raise ValueError("a GPU is named twice")
        return value

    @field_validator("extra_files")
    @classmethod
    def _places_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        missing = [place for place in value if not Path(place).exists()]
        if missing:
            raise ValueError(f"there is no {missing[0]}")
        return value

    @field_validator("requirements", mode="before")
    @classmethod
    def _off_is_no_boolean(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads an unquoted off as false

    @field_validator("requirements")
    @classmethod
    def _something_to_install(cls, value: str, info: ValidationInfo) -> str:
        if value == "install" and info.data.get("requirements_file") is None:
            raise ValueError("archive.requirements_file names none")
        return value


class DeployConfig(Section):
    """How TorchServe is run."""

    target: Literal["local", "remote", "compose", "kubernetes"] = Field(
        description="where the tuned archive goes; every run proves its archive on a local server first", examples=["compose"]
    )
    archive_url: str | None = Field(
        pattern=r"^(https?://[^\s@?#]+/)?\w[\w.\-]*\.mar$",
        description="where the remote server finds the archive: a file in its model store, or an address it may fetch from",
        examples=["resnet50-2.mar"],
    )
    image: str | None = Field(
        pattern=r"^[a-z0-9]+([._\-]+[a-z0-9]+)*(:\d+)?(/[a-z0-9]+([._\-]+[a-z0-9]+)*)*$",
        description="name of the container image, without a tag: the run is the tag; null takes the model's name",
        examples=["registry:5000/team/resnet50"],
    )
    replicas: int = Field(ge=1, le=1000, description="pods of a Kubernetes deployment, at least", examples=[2])
    canary_percent: int = Field(
        ge=1, le=50, description="share of the requests that the canary of a Kubernetes deployment gets", examples=[10]
    )
    ready_s: float = Field(gt=0, description="server and worker must be ready within this", examples=[120])
    java_home: str | None = Field(description="a Java 17+ to use; null takes the one that pip installed", examples=["null"])
    max_request_mb: int = Field(ge=1, le=2000, description="larger request bodies are refused", examples=[16])
    open_inference: bool = Field(description="answer the whole Open Inference Protocol, over gRPC too", examples=["false"])
    token_min: float = Field(
        ge=0.05, le=10080, description="minutes a token is valid; it is renewed after two thirds of them", examples=[60]
    )
    canary_s: float = Field(
        ge=0, le=86400, description="seconds a new version answers the samples beside the live one before a swap", examples=[30]
    )
    keep_versions: int = Field(ge=0, le=8, description="earlier versions that stay loaded after a swap", examples=[1])
    bind: str = Field(
        pattern=r"^\d{1,3}(\.\d{1,3}){3}$",
        description="the IPv4 address that predictions are asked at; all else stays on loopback",
        examples=["0.0.0.0"],  # noqa: S104 - an example of what one may ask for
    )
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(
        max_length=5,
        description="fixed ports for inference, management, metrics, gRPC inference, gRPC management; the rest are free ones",
        examples=["[8080,8081,8082]"],
    )
    tokens: bool = Field(description="whether every request needs a token", examples=["true"])
    allow_unsafe: tuple[Literal["no_tokens", "public_without_tokens"], ...] = Field(
        description="the unsafe settings that are meant, by name", examples=["[no_tokens]"]
    )

    @field_validator("ports")
    @classmethod
    def _each_port_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a port is named twice")
        return value


class LoadtestConfig(Section):
    """How load is sent."""

    arrivals: Literal["poisson", "constant", "bursty", "replay"] = Field(
        description="how open-loop requests arrive; replay plays loadtest.replay", examples=["poisson"]
    )
    replay: str | None = Field(
        description="a file with a timestamp on each line, seconds or ISO 8601, for loadtest.arrivals=replay",
        examples=["null"],
    )
    seed: int = Field(ge=0, description="seeds the arrival schedule", examples=[0])
    seconds: float = Field(gt=0, description="length of a load test started by hand", examples=[30])
    rps: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        description="requests per second of a load test started by hand; auto is 20, or a recording's own", examples=[20]
    )
    shape: Literal["steady", "step", "sweep", "soak", "spike"] = Field(
        description="rates over time of a load test started by hand: loadtest.rps throughout, in four steps up to it, up to it "
        "and down again, throughout and judged in ten parts, or three times it for a fifth of the time",
        examples=["steady"],
    )
    users: int = Field(
        ge=0, le=10_000, description="users who each wait for their answer, in place of a rate; 0 for a rate", examples=[0]
    )
    timeout_s: float = Field(gt=0, description="a request without answer for longer counts as lost", examples=[10])
    warmup_s: float = Field(ge=0, description="seconds at the start of a trial that are not judged", examples=[2])
    processes: int = Field(ge=1, le=64, description="processes that send a load test started by hand", examples=[1])
    expect_workers: int = Field(
        ge=0, le=1000, description="locust workers that join from other machines, in place of own processes", examples=[0]
    )
    web: bool = Field(description="true opens locust's web page for a load test started by hand", examples=["true"])

    @field_validator("replay")
    @classmethod
    def _replay_is_a_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (value is not None) != (info.data.get("arrivals") == "replay"):
            raise ValueError("loadtest.arrivals=replay and loadtest.replay=FILE go together")
        if value is not None and not located(value).is_file():
            raise ValueError("there is no such file")
        return value

    @field_validator("shape")
    @classmethod
    def _a_recording_has_its_shape(cls, value: str, info: ValidationInfo) -> str:
        if value != "steady" and info.data.get("arrivals") == "replay":
            raise ValueError("a recording that is replayed has a shape of its own")
        return value

    @field_validator("users")
    @classmethod
    def _users_follow_no_schedule(cls, value: int, info: ValidationInfo) -> int:
        if value and (info.data.get("shape") != "steady" or info.data.get("arrivals") == "replay"):
            raise ValueError("users send when they were answered, so loadtest.shape and loadtest.replay cannot be followed")
        return value

    @field_validator("expect_workers")
    @classmethod
    def _own_processes_or_others(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("processes", 1) > 1:
            raise ValueError("workers from elsewhere take the place of loadtest.processes")
        return value


class TuneConfig(Section):
    """What is searched, for how long, and what counts as good."""

    strategy: Literal["predict", "grid", "optuna"] = Field(
        description="predict: a twin of the server, then few load tests; grid: every configuration; optuna: a black box",
        examples=["grid"],
    )
    at_rps: float | None = Field(
        gt=0, description="requests per second for which tune.objective latency and cost choose", examples=[100]
    )
    objective: Literal["rate", "latency", "cost"] = Field(
        description="the highest rate within the SLO, or at tune.at_rps the lowest latency, or the fewest workers",
        examples=["rate"],
    )
    slo_ms: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        description="the latency objective in milliseconds, or auto", examples=[200]
    )
    percentile: float = Field(ge=50, lt=100, description="the percentile the objective is about", examples=[99])
    confidence: float = Field(gt=0.5, lt=1, description="how sure a verdict must be", examples=[0.95])
    max_error_rate: float = Field(ge=0, le=1, description="share of requests that may have no 200", examples=[0.001])
    max_memory_mb: float | None = Field(gt=0, description="memory that one worker may take, in MB", examples=[2000])
    gpu_share: float = Field(gt=0, le=1, description="share of each GPU's memory that may be taken", examples=[0.8])
    batch_sizes: tuple[Annotated[int, Field(ge=2, le=1024)], ...] = Field(
        min_length=1, description="batch sizes to try beside TorchServe's default of 1", examples=["[2,4,8]"]
    )
    max_batch_delays_ms: tuple[Annotated[int, Field(ge=1, le=60000)], ...] = Field(
        min_length=1, description="delays to try; 0 would cap a batch at 2 and is refused", examples=["[2,10]"]
    )
    workers: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        min_length=1, description="numbers of workers to try; the default is measured with the fewest", examples=["[1,2]"]
    )
    trial_s: float = Field(gt=0, description="seconds of load in one trial", examples=[10])
    steps: int = Field(
        ge=1,
        le=12,
        description="trials that look for rates: of each configuration in a grid, of all in predict",
        examples=[3],
    )
    budget_s: float = Field(gt=0, description="seconds of trials after which only confirmations follow", examples=[300])
    confirm_s: float = Field(gt=0, description="seconds of load that confirm the winner and the default", examples=[40])
    curve_repeats: int = Field(ge=3, description="batches measured per size of the service curve", examples=[30])

    @field_validator("workers", mode="before")
    @classmethod
    def _one_number_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("objective")
    @classmethod
    def _rate_where_one_is_needed(cls, value: str, info: ValidationInfo) -> str:
        if value != "rate" and info.data.get("at_rps") is None:
            raise ValueError("tune.at_rps=REQUESTS_PER_SECOND is missing, the rate it chooses for")
        return value


class ReportConfig(Section):
    """What the report plans for."""

    target_rps: float | None = Field(
        gt=0, description="traffic to plan for; null takes the rate that was measured", examples=[500]
    )
    headroom: float = Field(ge=0, lt=1, description="share of each replica kept free", examples=[0.3])
    price_per_hour: float | None = Field(
        gt=0, description="what one replica costs an hour, for the cost per million requests; null gives none", examples=[0.526]
    )
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="the currency of the price", examples=["EUR"])
    fail_if: str | None = Field(
        description=f"METRIC > NUMBER * baseline, joined by or; METRIC is one of {', '.join(METRICS)}",
        examples=['"p99_ms > 1.1 * baseline or rps < 0.9 * baseline"'],
    )
    baseline: str = Field(
        min_length=1, description="what to compare with: accepted, a run, or the path of a report.json", examples=["accepted"]
    )
    undecided: Literal["pass", "fail"] = Field(
        description="what becomes of a run where the noise leaves a rule of report.fail_if undecided", examples=["pass"]
    )

    @field_validator("fail_if")
    @classmethod
    def _rules_can_be_read(cls, value: str | None) -> str | None:
        if value is not None:
            parse_rules(value)
        return value


class PlanConfig(Section):
    """The traffic of a day, and what is to carry it: nox -s report -- model=NAME plan.rps=100000."""

    rps: float | None = Field(
        gt=0,
        le=1e6,
        description="requests per second at the peak of plan.trace; null takes a recording's own rates",
        examples=[100000],
    )
    trace: str = Field(
        description="constant, diurnal, or a file: a timestamp on each line, or lines of TIME,RATE; TIME in seconds or ISO,"
        " RATE in requests per second from then on",
        examples=["diurnal"],
    )
    valley: float = Field(gt=0, le=1, description="the lowest rate of a diurnal day, as a share of its peak", examples=[0.3])
    hours: int = Field(ge=1, le=168, description="hours to plan; a recording that is shorter is played again", examples=[24])
    growth: float = Field(ge=0, le=100, description="share that is added to all rates, for what is to come", examples=[0.2])
    balancing: Literal["round_robin", "least_outstanding"] = Field(
        description="how requests are dealt to replicas: in turn, or to the one that has the fewest", examples=["round_robin"]
    )
    spare: int = Field(ge=0, le=100, description="replicas beyond what the load needs, for those that are lost", examples=[1])
    replicas: int | None = Field(
        ge=1, le=20_000, description="what if there were so many; null plans as many as are needed", examples=[700]
    )
    seed: int = Field(ge=0, description="seeds the arrivals and the service times that are simulated", examples=[0])

    @field_validator("trace")
    @classmethod
    def _trace_is_known(cls, value: str) -> str:
        if value not in {"constant", "diurnal"} and not located(value).is_file():
            raise ValueError("there is no such file, and neither a trace of that name")
        return value


class Config(Section):
    """Everything one run is told."""

    model: str = Field(description="the name of the model", examples=["resnet50"])
    profile: str = Field(description="smoke, standard or thorough", examples=["standard"])
    accelerator: str = Field(description="auto, cpu, cuda, or the key of an emulated service curve", examples=["auto"])
    time_scale: float = Field(gt=0, description="slows an emulated accelerator by this factor", examples=[2])
    artifacts: str = Field(description="the folder runs are written to", examples=["artifacts"])
    artifacts_url: str | None = Field(
        pattern=r"^(s3://[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9](/[\w\-][\w.\-]*)*|file://(/[\w\-][\w.\-]*)+)$",
        description="a store that machines share: s3://BUCKET/PREFIX, or file:///FOLDER; credentials come from AWS's own "
        "variables, never from here",
        examples=["s3://team-models/marline"],
    )
    keep_runs: int = Field(ge=1, description="complete runs kept per model", examples=[10])
    until: Stage = Field(description="the last stage to run", examples=["report"])
    check_only: bool = Field(description="say whether the untrained model can be exported, and stop", examples=["true"])
    fresh: Stage | None = Field(description="the first stage that must not come from the cache", examples=["tune"])
    run: str | None = Field(
        pattern=r"^\d{8}-\d{6}-[0-9a-f]{4}$",
        description="the run to serve in place of the newest",
        examples=["20260102-030405-6789"],
    )
    retries: int = Field(ge=0, le=10, description="times a stage that failed for a passing reason is tried again", examples=[1])
    timeouts_s: dict[Stage, Annotated[float, Field(gt=0)]] = Field(
        description="seconds after which a stage is given up, waiting for the machine included", examples=["{tune: 7200}"]
    )
    notify_url: str | None = Field(
        pattern=r"^https?://[^/\s@]+(/\S*)?$",
        description="an http(s) address that gets a small JSON by POST when a run fails; where the address is itself a secret, "
        "put it into the environment as MARLINE_NOTIFY_URL instead",
        examples=["http://127.0.0.1:9000/marline"],
    )
    load: LoadConfig
    wrap: WrapConfig
    export: ExportConfig
    archive: ArchiveConfig
    deploy: DeployConfig
    loadtest: LoadtestConfig
    tune: TuneConfig
    report: ReportConfig
    plan: PlanConfig

    @property
    def handler(self) -> str | None:
        """The handler file that is named: the source where that is one, else `archive.handler`."""
        kind, _, file = self.load.source.partition(":")
        return file if kind == "handler" else self.archive.handler
