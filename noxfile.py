"""One command takes a PyTorch model from a checkpoint to a tuned, served, measured archive.

    nox -s pipeline -- model=resnet50

Everything after -- is key=value; `nox --usage NAME` explains one command.
"""

import hashlib
import os
from pathlib import Path

import nox

nox.needs_version = ">=2026.8.17"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "tests"]
nox.options.stop_on_first_error = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
PACKAGES = sorted(file.parent for file in Path("packages").glob("*/pyproject.toml"))
QUIET = {  # other people's analytics, off for what we start here
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
COMPILED_ONCE = {"PYTHONDONTWRITEBYTECODE": ""}  # tests start hundreds of Pythons
STAGES = {
    "load": "Stage 1: a checkpoint folder and sample inputs from the model's source.",
    "wrap": "Stage 2: a self-contained Hugging Face repository whose use can be tracked.",
    "export": "Stage 3: TorchScript, proven equal to the eager model.",
    "archive": "Stage 4: the .mar, with the shared handler inside; of any files: model_name=X model_file=F; inspect=FILE.mar",
    "deploy": "Stage 5: prove the archive over HTTP; status=true shows the servers, deploy.target=compose takes it elsewhere.",
    "tune": "Stage 6: find batch size and delay with real load: nox -s tune -- model=digits_cnn tune.slo_ms=50",
    "report": "Stage 7: the capacity report; of finished runs: list=true, compare=A,B, accept=RUN; what if: plan.rps=100000",
}
LEARNED_ONCE = (  # or first runs would: Java learns TorchServe's classes, C++ and the twin are compiled, Prefect has its tables
    ("marline.deploy.training",),
    ("marline.export._building",),
    ("marline.plan._compiling",),
    ("prefect", "server", "database", "upgrade", "-y"),
)
LOCAL = "deploy.target=local"
OF_RUNS = ("list=", "compare=", "accept=")
FIRST_PARTY = (
    *("marline", "marline_tracker", "audio_input", "base_handler", "batch_facts", "body_formats", "collation", "device_use"),
    *("eager_model", "emulated_device", "explanation", "graph_file", "image_input", "method_call", "model_loading"),
    *("one_batch", "open_inference", "request_decoding", "text_input"),
)
NEEDED_UNSEEN = {  # dependencies whose files, programs or generated code are used, not an import
    "export": ["transformers"],
    "load": ["accelerate", "scikit-image", "scikit-learn"],
    "loadtest": ["locust"],
    "wrap": ["torch", "torchvision", "transformers"],
}


@nox.session(default=False)
def env(session: nox.Session) -> None:
    """Install every package, editable, into the one environment all commands share, and do there what is needed once.

    Does nothing while the constraints, the tools and all package metadata are unchanged.
    """
    tools = nox.project.dependency_groups(PYPROJECT, "dev")
    files = [Path("constraints.txt"), *(package / "pyproject.toml" for package in PACKAGES)]
    parts = [" ".join(tools).encode(), repr(LEARNED_ONCE).encode(), *(file.read_bytes() for file in files)]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    stamp = Path(session.virtualenv.location) / "installed.sha256"
    if stamp.exists() and stamp.read_text() == digest:
        return
    stamp.unlink(missing_ok=True)  # a failed install must not look finished
    editable = [word for package in PACKAGES for word in ("-e", str(package))]
    session.install("-c", "constraints.txt", *tools, *editable)  # one call: one resolution for all
    empty = Path(session.virtualenv.location).absolute() / "prefect.db"
    empty.unlink(missing_ok=True)
    database = {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{empty}", "PREFECT_HOME": session.create_tmp()}
    for words in LEARNED_ONCE:
        session.run_install("python", "-m", *words, env=QUIET | database)
    session.run_install("python", "-c", f"open({str(stamp)!r}, 'w').write({digest!r})")  # skipped with -R, like install


def run(session: nox.Session, program: str, *words: str, **told: str) -> None:
    """Run a program of the shared environment; it gets time to clean up when interrupted."""
    path = Path(".nox/env/bin", program).absolute()
    session.run(str(path), *words, env=QUIET | told, interrupt_timeout=30, terminate_timeout=10)


@nox.session(venv_backend="none", requires=["env"], default=False)
def pipeline(session: nox.Session) -> None:
    """The whole life of a model, ending with a capacity report: nox -s pipeline -- model=resnet50"""
    run(session, "python", "-m", "pipelines", *session.posargs)


def add_stage(name: str, summary: str) -> None:
    """One command per stage; it makes what is missing upstream and reuses what is current."""

    def command(session: nox.Session) -> None:
        if name == "archive" and session.posargs and not any(word.startswith("model=") for word in session.posargs):
            run(session, "python", "-m", "marline.archive", *session.posargs)  # no stage of a run: any files, any archive
        elif name == "deploy" and "status=true" in session.posargs:
            run(session, "python", "-m", "marline.deploy.status", *session.posargs)
        elif name == "deploy" and any(word.startswith("deploy.target=") for word in set(session.posargs) - {LOCAL}):
            run(session, "python", "-m", "marline.deploy.target", *session.posargs)  # what becomes of a run that is done
        elif name == "report" and any(word.startswith("plan.") for word in session.posargs):
            run(session, "python", "-m", "marline.plan", *session.posargs)  # what if the newest run carried another load
        elif name == "report" and any(word.startswith(OF_RUNS) for word in session.posargs):
            run(session, "python", "-m", "marline.report._runs", *session.posargs)
        else:
            run(session, "python", "-m", "pipelines", f"until={name}", *session.posargs)

    command.__doc__ = summary  # before nox reads it
    nox.session(name=name, venv_backend="none", requires=["env"], default=False)(command)


for stage_name, stage_summary in STAGES.items():
    add_stage(stage_name, stage_summary)


@nox.session(venv_backend="none", requires=["env"], default=False)
def config(session: nox.Session) -> None:
    """The merged configuration, each value with its origin: nox -s config -- model=resnet50"""
    run(session, "python", "-m", "marline.core", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def serve(session: nox.Session) -> None:
    """Serve the newest tuned archives in the foreground and print curl lines: nox -s serve -- model=NAME,NAME"""
    run(session, "python", "-m", "marline.deploy.serve", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def swap(session: nox.Session) -> None:
    """Have the server started with serve take the newest tuned archive without loss: nox -s swap -- model=NAME run=RUN"""
    run(session, "python", "-m", "marline.deploy._swap_command", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def loadtest(session: nox.Session) -> None:
    """Run locust against a server started with serve: nox -s loadtest -- model=NAME loadtest.rps=50"""
    run(session, "python", "-m", "marline.loadtest", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def schedule(session: nox.Session) -> None:
    """Serve the pipeline as a scheduled Prefect deployment: nox -s schedule -- model=NAME cron="0 3 * * *" """
    run(session, "python", "-m", "pipelines.schedule", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def prefect(session: nox.Session) -> None:
    """Start Prefect's server and page, with its database in artifacts/.prefect, or database=postgresql+asyncpg://USER@HOST/NAME"""
    run(session, "python", "-m", "pipelines.server", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def fetch(session: nox.Session) -> None:
    """Bring a finished run, or its report, from the store: nox -s fetch -- model=NAME artifacts_url=s3://BUCKET/PREFIX"""
    run(session, "python", "-m", "pipelines.fetch", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def worker(session: nox.Session) -> None:
    """Take runs from a pool of the server at PREFECT_API_URL, one at a time: nox -s worker -- pool=marline"""
    run(session, "python", "-m", "pipelines.worker", *session.posargs)


@nox.session(name="new-model", venv_backend="none", requires=["env"], default=False)
def new_model(session: nox.Session) -> None:
    """A runnable skeleton in models/ and configs/models/: nox -s new-model -- name=NAME kind=hf base=bert"""
    run(session, "python", "-m", "pipelines.new_model", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def doctor(session: nox.Session) -> None:
    """What this machine has: Java, GPU, ports, disk, unsafe settings; more with model=NAME, inspect=FILE.mar, config=FILE."""
    run(session, "python", "-m", "marline.deploy.doctor", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def bench(session: nox.Session) -> None:
    """A benchmark, as a table and artifacts/bench/NAME.json: nox -s bench -- name=pipeline"""
    run(session, "python", "-m", "pipelines.bench", *session.posargs)


@nox.session(venv_backend="none", requires=["env"], default=False)
def unit(session: nox.Session) -> None:
    """The fast tests only: nox -s unit -- -k manifest"""
    run(session, "python", "-m", "pytest", "-m", "not e2e and not browser and not slow and not faults", *session.posargs)


@nox.session(venv_backend="none", requires=["env"])
def tests(session: nox.Session) -> None:
    """Every test, end to end on real TorchServe included: nox -s tests -- -k manifest"""
    workers = len(os.sched_getaffinity(0)) + 2  # tests of servers wait half of their time
    words = ["-n", str(workers), "--no-loadscope-reorder", "-m", "not slow and not faults"]
    run(session, "python", "-m", "pytest", *words, *session.posargs, **COMPILED_ONCE)


@nox.session(venv_backend="none", requires=["env"], default=False)
def faults(session: nox.Session) -> None:
    """Faults injected into the real thing, each with what must follow and by when: nox -s faults -- group=deploy times=3"""
    run(session, "python", "-m", "pipelines.faults", *session.posargs)


@nox.session(venv_backend="none", requires=["env"])
def lint(session: nox.Session) -> None:
    """Style, types, import direction and declared dependencies."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "mypy")
    run(session, "lint-imports", "--no-logo")
    siblings = [f"marline-{package.name}" for package in PACKAGES]  # deptry cannot tell them apart; a test can
    for package in PACKAGES:
        unseen = "|".join([*siblings, *NEEDED_UNSEEN.get(package.name, [])])
        first = [word for name in FIRST_PARTY for word in ("--known-first-party", name)]
        own = [*first, "--per-rule-ignores", f"DEP002={unseen}"]
        run(session, "deptry", str(package / "src"), "--config", str(package / "pyproject.toml"), *own)


@nox.session(default=False)
def constraints(session: nox.Session) -> None:
    """Write constraints.txt anew from a fresh resolution, keeping its comments; review it like code."""
    tools = nox.project.dependency_groups(PYPROJECT, "dev")
    editable = [word for package in PACKAGES for word in ("-e", str(package))]
    session.install(*tools, *editable)
    frozen = session.run("python", "-m", "pip", "freeze", "--exclude-editable", silent=True) or ""
    pins = sorted((line.split("+")[0] for line in frozen.splitlines() if "==" in line), key=str.lower)
    head, *before = Path("constraints.txt").read_text().splitlines()
    why = {line.split("==")[0]: line.partition("  #")[2] for line in before}
    lines = [f"{pin:<30}#{why[pin.split('==')[0]]}" if why.get(pin.split("==")[0]) else pin for pin in pins]
    Path("constraints.txt").write_text("\n".join([head, *lines]) + "\n")
