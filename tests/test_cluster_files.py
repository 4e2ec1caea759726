"""The shipped cluster files, checked as far as they can be without a cloud, a Kubernetes cluster, a
scheduler or a container engine: by schema, by the constraints file, and by what they promise.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
RAY_UP = sorted(CLUSTER.glob("ray_up_*.yaml"))
KUBERNETES = sorted((CLUSTER / "kuberay").glob("*.yaml"))
DOCKERFILE = CLUSTER / "Dockerfile"
SBATCH = CLUSTER / "slurm" / "sweep.sbatch"
GUIDE = CLUSTER / "README.md"
SHIPPED = [*RAY_UP, *KUBERNETES, DOCKERFILE, SBATCH, GUIDE]
FIELDS = json.loads((ROOT / "tests/fixtures/kubernetes_fields.json").read_text())
# In a pod a service reaches the pod's address alone; networkpolicy.yaml bounds both.
MAY_LISTEN_EVERYWHERE = {"kuberay/mlflow.yaml", "kuberay/raycluster.yaml", "kuberay/rayjob.yaml"}
TYPES = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}


def name_of(path: Path) -> str:
    return path.relative_to(CLUSTER).as_posix()


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def objects(kind: str) -> list[dict[str, Any]]:
    return [d for path in KUBERNETES for d in documents(path) if d["kind"] == kind]


def pinned() -> dict[str, str]:
    lines = (ROOT / "scripts/constraints.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def prepared(path: Path) -> dict[str, Any]:
    """The file as `ray up` reads it: with Ray's own defaults filled in."""
    from ray.autoscaler._private.util import prepare_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(path.read_text()))
    return config


def commands(config: dict[str, Any]) -> str:
    keys = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    return "\n".join(line for key in keys for line in config[key])


# Ray's cluster launcher


@pytest.mark.parametrize("path", RAY_UP, ids=name_of)
def test_a_ray_up_file_is_valid_by_rays_own_schema(path: Path) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(prepared(path))


@pytest.mark.parametrize("path", RAY_UP, ids=name_of)
def test_every_node_is_started_with_the_token_and_from_the_projects_folder(path: Path) -> None:
    config = prepared(path)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = config[key][-1]
        assert start.startswith("cd ~/sweep ")
        assert "RAY_AUTH_MODE=token" in start and "PYTHONPATH=$HOME/sweep" in start
    assert "--dashboard-host 127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "RAY_JOB_STOP_SIGNAL=SIGINT" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("path", RAY_UP, ids=name_of)
def test_what_a_ray_up_file_copies_is_here_and_can_be_set_up(path: Path) -> None:
    mounts = yaml.safe_load(path.read_text())["file_mounts"]
    here = {local for local in mounts.values() if not local.startswith("~")}
    assert here >= {"pyproject.toml", "scripts", "models", "tune_jobs"}
    assert all((ROOT / local).exists() for local in here)


@pytest.mark.parametrize("path", RAY_UP, ids=name_of)
def test_every_option_of_ray_start_is_one_that_ray_knows(path: Path) -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    for line in commands(prepared(path)).splitlines():
        words = shlex.split(line.partition("ray start")[2])
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("path", [p for p in RAY_UP if "onprem" not in p.name], ids=name_of)
def test_a_cloud_grows_from_nothing_with_spot_and_gpu_workers_and_shrinks(path: Path) -> None:
    config = prepared(path)
    types = config["available_node_types"]
    workers = {name: t for name, t in types.items() if name != config["head_node_type"]}
    assert types[config["head_node_type"]]["resources"]["CPU"] == 0
    assert all(t["min_workers"] == 0 < t["max_workers"] for t in workers.values())
    assert any(t["resources"].get("GPU") for t in workers.values())
    assert any("spot" in json.dumps(t["node_config"]).lower() for t in workers.values())
    assert 0 < config["idle_timeout_minutes"] <= 30


class Metadata(BaseHTTPRequestHandler):
    """A provider's metadata server: a warning cannot be staged. It comes at the second look."""

    warned: bool

    def answer(self, found: bool, text: str = "") -> None:
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        self.answer(self.path == "/latest/api/token", "the-token")

    def do_GET(self) -> None:
        if self.headers.get("Metadata-Flavor") == "Google":
            asked = self.path == "/computeMetadata/v1/instance/preempted"
            self.answer(asked, "TRUE" if self.warned else "FALSE")
        elif self.headers.get("X-aws-ec2-metadata-token") == "the-token":
            self.answer(self.warned and self.path == "/latest/meta-data/spot/instance-action", "{}")
        else:
            self.answer(False)
        type(self).warned = True

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize(("provider", "left"), [("aws", "120"), ("gcp", "30")])
def test_a_spot_warning_drains_the_node(tmp_path: Path, provider: str, left: str) -> None:
    Metadata.warned = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, said in (("python", "echo this-node"), ("ray", 'echo "$@"'), ("sleep", ":")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / name).chmod(0o755)
    try:
        done = subprocess.run(
            [str(ROOT / "cluster" / "spot_warning.sh"), provider, "head:6379"],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "no_proxy": "*",
                              "SPOT_METADATA_URL": f"http://127.0.0.1:{server.server_port}"},
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    words = shlex.split(done.stdout)
    assert words[:5] == ["drain-node", "--address", "head:6379", "--node-id", "this-node"]
    assert words[-2:] == ["--deadline-remaining-seconds", left]


def test_ray_knows_the_options_that_drain_a_node() -> None:
    from ray.scripts.scripts import drain_node

    known = {option for parameter in drain_node.params for option in parameter.opts}
    text = (ROOT / "cluster" / "spot_warning.sh").read_text().partition("ray drain-node")[2]
    words = shlex.split(text)
    assert {word for word in words if word.startswith("--")} <= known
    assert "DRAIN_NODE_REASON_PREEMPTION" in str(
        next(p.type for p in drain_node.params if "--reason" in p.opts)
    )


# Kubernetes


def faults(value: Any, facts: dict[str, Any], path: str = "") -> Iterator[str]:
    """What in `value` breaks the facts: a field unknown, of another type, or missing."""
    fact = facts.get(path)
    if fact is None:
        yield f"{path}: no such field"
    elif "is" in fact:
        yield from faults(value, FIELDS[fact["is"]])
    elif not has_type(value, fact["type"]):
        yield f"{path}: {value!r} is not {fact['type']}"
    elif "enum" in fact and value not in fact["enum"]:
        yield f"{path}: {value!r} is not one of {fact['enum']}"
    else:
        yield from faults_within(value, fact, facts, path)


def faults_within(
    value: Any, fact: dict[str, Any], facts: dict[str, Any], path: str
) -> Iterator[str]:
    yield from (f"{path}: lacks {n}" for n in fact.get("required", []) if n not in value)
    if "values" in fact:
        bad = [k for k, v in value.items() if not has_type(v, fact["values"])]
        yield from (f"{path}.{k}: not {fact['values']}" for k in bad)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from faults(item, facts, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from faults(item, facts, f"{path}[]")


def has_type(value: Any, name: str) -> bool:
    if name == "quantity":
        return isinstance(value, str | int) and not isinstance(value, bool)
    return isinstance(value, TYPES[name]) and isinstance(value, bool) == (name == "boolean")


@pytest.mark.parametrize("path", KUBERNETES, ids=name_of)
def test_a_kubernetes_file_has_no_field_that_its_schema_lacks(path: Path) -> None:
    for document in documents(path):
        kind = document["kind"]
        assert document["apiVersion"] == FIELDS["api_versions"][kind]
        assert not list(faults(document["spec"], FIELDS[kind])), path


def test_the_schema_check_finds_a_misspelt_field_and_a_wrong_value() -> None:
    spec = objects("RayCluster")[0]["spec"]
    wrong = spec | {"authOption": {}, "authOptions": {"mode": "none"}, "rayVersion": 2.6}
    assert {fault.split(":")[0] for fault in faults(wrong, FIELDS["RayCluster"])} == {
        "authOption",
        "authOptions.mode",
        "rayVersion",
    }


def ray_clusters() -> list[dict[str, Any]]:
    made_by_jobs = [d["spec"]["rayClusterSpec"] for d in objects("RayJob")]
    return [*(d["spec"] for d in objects("RayCluster")), *made_by_jobs]


def test_every_ray_cluster_has_token_autoscaler_and_both_kinds_of_workers() -> None:
    assert len(ray_clusters()) == 2
    for spec in ray_clusters():
        assert spec["authOptions"]["mode"] == "token"
        assert spec["enableInTreeAutoscaling"]
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
        assert set(groups) == {"cpu", "gpu"}
        limits = groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"]
        assert all(g["minReplicas"] == 0 < g["maxReplicas"] for g in groups.values())
        assert all(g["idleTimeoutSeconds"] for g in groups.values())


def test_the_cluster_of_the_job_is_the_cluster_that_stays() -> None:
    staying, of_job = ray_clusters()
    assert staying == of_job


def test_the_job_runs_the_sweep_on_storage_that_all_see_and_then_ends() -> None:
    (job,) = (d["spec"] for d in objects("RayJob"))
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["python", "tune_jobs/sweep.py"]
    assert words[words.index("--runs-dir") + 1].startswith("/shared/")
    assert job["shutdownAfterJobFinishes"] and job["ttlSecondsAfterFinished"] > 0
    stops = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    assert stops == {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "25"}


def pods() -> Iterator[dict[str, Any]]:
    for kind in ("Deployment", "StatefulSet"):
        yield from (d["spec"]["template"] for d in objects(kind))
    yield from (d["spec"]["submitterPodTemplate"] for d in objects("RayJob"))
    for spec in ray_clusters():
        yield spec["headGroupSpec"]["template"]
        yield from (group["template"] for group in spec["workerGroupSpecs"])


def test_no_pod_runs_as_root_or_may_become_it() -> None:
    for pod in pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"]
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_every_pod_stands_behind_a_network_policy() -> None:
    guarded = {
        tuple(d["spec"]["podSelector"]["matchLabels"].items()) for d in objects("NetworkPolicy")
    }
    for pod in pods():
        label = ("batch-size-sweep", pod["metadata"]["labels"]["batch-size-sweep"])
        assert (label,) in guarded
    for policy in objects("NetworkPolicy"):
        assert "Ingress" in policy["spec"]["policyTypes"]
        assert all(rule["from"] for rule in policy["spec"]["ingress"])


def test_services_secrets_and_claims_that_are_named_exist() -> None:
    claims = {d["metadata"]["name"] for d in objects("PersistentVolumeClaim")}
    services = {d["metadata"]["name"]: d["spec"] for d in objects("Service")}
    for pod in pods():
        for volume in pod["spec"].get("volumes", []):
            assert volume["persistentVolumeClaim"]["claimName"] in claims
    text = "".join(path.read_text() for path in KUBERNETES)
    assert {"sweep-mlflow", "sweep-postgres"} == set(services)
    assert "http://sweep-mlflow:5000" in text and "@sweep-postgres:5432" in text
    secrets = set(re.findall(r"secretKeyRef: {name: ([\w-]+)", text))
    assert all(f"kubectl create secret generic {name} " in text for name in secrets)


def test_mlflow_is_started_with_options_that_it_knows() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, about its type hints
        from mlflow.cli import server

    (deployment,) = objects("Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    known = {option for parameter in server.params for option in parameter.opts}
    given = {word.split("=")[0] for word in container["args"]}
    assert container["command"] == ["mlflow", "server"]
    assert given <= known
    assert {"--allowed-hosts", "--workers", "--backend-store-uri"} <= given
    off = {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"}
    assert off in container["env"]


# Versions


def test_the_image_takes_every_version_from_the_constraints_file() -> None:
    text = DOCKERFILE.read_text()
    installs = re.findall(r"pip install[^&]*", text.replace("\\\n", ""))
    assert installs and all("-c scripts/constraints.txt" in line for line in installs)
    for name, version in re.findall(r"([\w.-]+)==([\w.]+)", text):
        assert pinned()[name] == version


def test_kuberay_is_told_the_ray_version_of_the_constraints_file() -> None:
    assert {spec["rayVersion"] for spec in ray_clusters()} == {pinned()["ray"]}


def test_the_base_image_is_pinned_to_the_python_that_the_project_asks_for() -> None:
    (base,) = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)


def test_every_pod_has_an_image_with_a_version_and_one_image_is_built_here() -> None:
    images = {c["image"] for pod in pods() for c in pod["spec"]["containers"]}
    assert all(re.search(r":\d", image) for image in images)
    own = {image for image in images if "batch-size-sweep" in image}
    assert len(own) == 1 and own.pop() in DOCKERFILE.read_text()


def test_the_image_does_not_run_as_root_and_starts_ray_where_the_project_lies() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    (folder,) = (line.split()[1] for line in lines if line.startswith("WORKDIR"))
    assert f"PYTHONPATH={folder}" in DOCKERFILE.read_text()
    assert "RAY_AUTH_MODE=token" in DOCKERFILE.read_text()


def test_what_the_image_copies_is_let_into_the_build() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
                assert source.split("/")[0] in let_in


# Security, of all files


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_nothing_listens_on_every_address_but_where_it_is_said(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if "0.0.0.0" in line]
    binding = [line for line in lines if not line.lstrip().startswith("#")]
    if name_of(path) in MAY_LISTEN_EVERYWHERE:
        assert len(binding) == 1
        assert "networkpolicy.yaml" in path.read_text()
    elif path != GUIDE:
        assert not binding


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_no_secret_stands_in_a_file(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b(AKIA|ghp_|hf_|sk-)[A-Za-z0-9]{8}", text)
    assert not re.search(r"\b[0-9a-f]{40,}\b", text)
    assert not re.search(r"://[^/\s@]+:[^/\s@$]+@", text), "a password in a URI"
    named = (
        r"(?i)(password|token|secret|_key)\w*[\"']?\s*[:=]\s*[\"']?(?P<value>[A-Za-z0-9+/]{16,})"
    )
    assert not re.search(named, text)


@pytest.mark.parametrize("path", KUBERNETES, ids=name_of)
def test_secrets_reach_a_container_by_reference_alone(path: Path) -> None:
    for document in documents(path):
        assert document["kind"] != "Secret"
    for pod in pods():
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                if re.search("PASSWORD|TOKEN|SECRET", variable["name"]):
                    assert "value" not in variable and "secretKeyRef" in variable["valueFrom"]


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_no_file_names_a_registrys_host(path: Path) -> None:
    hosts = r"\b[\w-]+(\.[\w-]+)*\.(io|com|dev|org|net|amazonaws)/[\w./-]+:[\w.]+"
    assert not re.search(hosts, path.read_text())


# Slurm


def test_the_slurm_script_is_valid_bash_and_uses_options_that_ray_knows() -> None:
    from ray.scripts.scripts import start

    subprocess.run(["bash", "-n", str(SBATCH)], check=True)
    text = SBATCH.read_text()
    part = text[text.index("common=") : text.index("# With job control")]
    known = {option for parameter in start.params for option in parameter.opts}
    slurms = {"--overlap", "--nodes", "--ntasks", "--nodelist", "--resume"}
    asked = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", part))
    assert asked - slurms - {"--all-ip-addresses"} <= known
    assert "umask 077" in text and "RAY_AUTH_MODE=token" in text


STAND_INS = {
    "scontrol": "echo node1; echo node2",
    "srun": """while [[ $1 == --* ]]; do shift; done; exec "$@" """,
    "hostname": "echo 192.0.2.1 192.0.2.2",
    ".venv/bin/ray": """[ "$1" = start ] || exit 0; echo "$@" >>started; exec sleep 60""",
    ".venv/bin/python": """echo "$@ $RAY_ADDRESS" >asked; stat -c %a "$RAY_AUTH_TOKEN_PATH" >mode
        trap 'exit 130' INT
        until [ "$(cat started 2>/dev/null | wc -l)" = 2 ]; do sleep 0.1; done; touch ready
        for _ in {1..600}; do sleep 0.1; done""",
}


def slurm_job(folder: Path, restarts: int) -> subprocess.Popen[bytes]:
    """The script in a folder where Slurm, Ray and Python are stand-ins that note what they get."""
    for name, body in STAND_INS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    around = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(folder)}
    around |= {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "node[1-2]"}
    around |= {"SLURM_RESTART_COUNT": str(restarts)}
    # What was started in the background inherits SIGINT ignored, which bash cannot trap then.
    return subprocess.Popen(
        ["bash", str(SBATCH), "--name", "a"],
        env=around,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(("restarts", "asked"), [(0, "--name a"), (1, "--name a --resume")])
def test_the_slurm_script_hands_the_signal_on_and_leaves_nothing(
    tmp_path: Path, restarts: int, asked: str
) -> None:
    job = slurm_job(tmp_path, restarts)
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    assert job.wait(30) == 130
    assert (tmp_path / "asked").read_text() == f"tune_jobs/sweep.py {asked} 192.0.2.1:20012\n"
    assert (tmp_path / "mode").read_text() == "600\n"
    workers, head = sorted((tmp_path / "started").read_text().splitlines())
    assert "--head" in head and "--address 192.0.2.1:20012" in workers
    assert not list((tmp_path / "runs").iterdir())
