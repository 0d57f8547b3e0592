"""The files for containers, checked without Docker or a cluster.

Each file fits its schema, names only existing things, and says nothing unknown to the program.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from perdure.cli.main import app
from perdure.cli.processes.serve import work
from perdure.server.app import all_routes
from perdure.server.process.settings import Settings, load

ROOT: Final = Path(__file__).parent.parent
MANIFESTS: Final = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
KUBERNETES: Final = ("1.30", kubernetes_validate.latest_version())
NOBODY: Final = 10001
DRAIN_SECONDS: Final = 25
"""What a server takes at most to end (perdure.server.app)."""

Json = dict[str, Any]


# --- Dockerfile ----------------------------------------------------------------------------------------------------


class Stage:
    """A FROM of the Dockerfile, and the lines below."""

    def __init__(self, name: str, parent: str) -> None:
        self.name = name
        self.parent = parent
        self.lines: list[tuple[str, str]] = []

    def last(self, instruction: str) -> str | None:
        """What the last such instruction says."""
        found = [rest for name, rest in self.lines if name == instruction]
        return found[-1] if found else None


def stages() -> dict[str, Stage]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            parent, _, name = rest.partition(" AS ")
            found[name] = stage = Stage(name, parent)
        else:
            stage.lines.append((instruction, rest.strip()))
    return found


def said(name: str, instruction: str) -> str | None:
    """What an image says, its parents included."""
    found = stages()
    stage = found.get(name)
    while stage is not None:
        if (answer := stage.last(instruction)) is not None:
            return answer
        stage = found.get(stage.parent)
    return None


@pytest.mark.skipif(sys.platform != "linux", reason="the linter's wheels are for Linux")
def test_the_linter_finds_nothing() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_and_gets_past_the_ignore_file() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"  # nothing goes in that is not named
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for stage in stages().values():
        for instruction, rest in stage.lines:
            if instruction == "COPY" and not rest.startswith("--from"):
                *sources, _ = rest.split()
                copied.update(sources)
            elif instruction == "COPY":
                assert rest.split()[0].removeprefix("--from=") in stages()
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("image", ["server", "worker"])
def test_an_image_runs_as_nobody(image: str) -> None:
    assert said(image, "USER") == f"{NOBODY}:{NOBODY}"
    assert all(instruction != "USER" or rest.split(":")[0] == str(NOBODY) for instruction, rest in _all_lines())
    secret = re.compile(r"(password|secret|api_key|token)\s*=", re.IGNORECASE)
    assert not [rest for _, rest in _all_lines() if secret.search(rest)]


def _all_lines() -> Iterator[tuple[str, str]]:
    for stage in stages().values():
        yield from stage.lines


def test_the_last_stage_is_the_server_with_a_healthcheck_on_a_route() -> None:
    assert list(stages())[-1] == "server"
    check = said("server", "HEALTHCHECK")
    assert check is not None
    url = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", check)
    assert url is not None
    assert (int(url[1]), url[2] in open_paths()) == (Settings().port, True)
    command = json.loads(check.partition(" CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")


def test_the_image_s_labels_agree_with_the_project() -> None:
    label = said("server", "LABEL") or ""
    values = dict(part.split("=", 1) for part in shlex.split(label))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'description = "{values["org.opencontainers.image.description"]}"' in project
    assert f'license = "{values["org.opencontainers.image.licenses"]}"' in project


def test_the_variables_of_the_images_are_settings() -> None:
    variables = dict(part.split("=", 1) for part in shlex.split(said("server", "ENV") or ""))
    assert load(environ=variables).host == "0.0.0.0"


# --- Compose -------------------------------------------------------------------------------------------------------


def compose() -> Json:
    found: Json = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return found


def test_the_compose_file_keeps_to_its_schema() -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(compose(), json.loads(schema.read_text(encoding="utf-8")))


def test_compose_names_only_what_is_there() -> None:
    found = compose()
    services = found["services"]
    images = {name: service["build"]["target"] for name, service in services.items() if "build" in service}
    assert set(images.values()) == {"server", "worker"}
    checked = {"postgres"} | {name for name, target in images.items() if said(target, "HEALTHCHECK") is not None}
    for service in services.values():
        on = service.get("depends_on", {})
        assert set(on) <= set(services)
        for name, how in on.items() if isinstance(on, dict) else ():
            assert how["condition"] != "service_healthy" or name in checked
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in found["volumes"]
        assert (ROOT / f"{service['env_file']}.example").is_file()


def test_compose_leaves_time_to_drain() -> None:
    for name, service in compose()["services"].items():
        if name not in ("postgres", "migrate"):
            assert int(service["stop_grace_period"].rstrip("s")) > max(DRAIN_SECONDS, grace_seconds())


def test_an_environment_file_of_the_servers_is_understood_by_them() -> None:
    variables = environment("database")
    assert variables["POSTGRES_PASSWORD"] in variables["PERDURE_STORE"]
    assert load(environ=variables).store == variables["PERDURE_STORE"]
    assert not set(environment("worker")) & set(variables)  # a worker needs no database


def environment(name: str) -> dict[str, str]:
    lines = (ROOT / "deploy" / f"{name}.env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# --- Kubernetes ----------------------------------------------------------------------------------------------------


def manifests() -> list[Json]:
    return [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def named(kind: str, name: str) -> Json:
    (found,) = (one for one in manifests() if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def pod_of(manifest: Json) -> Json:
    """The pods that a manifest makes."""
    found: Json = manifest["spec"]["template"]["spec"] if manifest["kind"] in ("Deployment", "Job") else {}
    return found


def open_paths() -> set[str]:
    """Paths that answer without a key."""
    return {route.path for route in all_routes() if route.role is None and "GET" in route.method}


def grace_seconds() -> float:
    """How long a worker lets steps end by itself."""
    assert work.__defaults__ is not None
    return float(next(value for value in work.__defaults__ if isinstance(value, float)))


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_keeps_to_its_schema(version: str) -> None:
    assert len(manifests()) >= 8
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_manifest_with_a_wrong_word_is_found() -> None:
    manifest = named("Deployment", "perdure-server")
    manifest["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize(
    "manifest", [one for one in manifests() if pod_of(one)], ids=lambda one: one["metadata"]["name"]
)
def test_a_pod_has_no_rights(manifest: Json) -> None:
    pod = pod_of(manifest)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == NOBODY
    secrets = {one["metadata"]["name"] for one in manifests() if one["kind"] == "Secret"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {one["secretRef"]["name"] for one in container["envFrom"]} <= secrets
        assert container["image"].split(":")[0] in ("perdure-server", "perdure-worker")


def test_selectors_match_their_pods() -> None:
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in manifests() if pod_of(one)
    }
    server = labels["perdure-server"]
    for kind, name in (("Deployment", "perdure-server"), ("PodDisruptionBudget", "perdure-server")):
        assert named(kind, name)["spec"]["selector"]["matchLabels"] == server
    assert named("Service", "perdure")["spec"]["selector"] == server
    assert named("NetworkPolicy", "perdure-server")["spec"]["podSelector"]["matchLabels"] == server
    worker = named("Deployment", "perdure-worker")["spec"]
    assert worker["selector"]["matchLabels"] == labels["perdure-worker"]
    (container,) = worker["template"]["spec"]["containers"]
    assert {"name": "PERDURE_URL", "value": "http://perdure:8080"} in container["env"]


def test_probes_ask_what_answers_without_a_key() -> None:
    (server,) = pod_of(named("Deployment", "perdure-server"))["containers"]
    paths = {name: server[name]["httpGet"]["path"] for name in server if name.endswith("Probe")}
    assert paths == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/openapi.json"}
    assert set(paths.values()) <= open_paths()
    assert {"name": "http", "containerPort": Settings().port} in server["ports"]


def test_no_pod_may_claim_an_address_unless_an_ingress_is_named() -> None:
    [container] = pod_of(named("Deployment", "perdure-server"))["containers"]
    assert load(environ={one["name"]: one["value"] for one in container["env"]}).proxies == ()


def test_workers_reach_all_but_metadata_addresses() -> None:
    policy = named("NetworkPolicy", "perdure-workers")["spec"]
    [servers] = [one for one in policy["podSelector"]["matchExpressions"] if one["operator"] == "NotIn"]
    assert policy["policyTypes"] == ["Egress"] and servers["values"] == ["server", "migrate"]
    blocks = [to["ipBlock"] for rule in policy["egress"] for to in rule.get("to", ()) if "ipBlock" in to]
    refused = [ip_network(one) for block in blocks for one in block["except"]]
    for block in blocks:
        assert all(ip_network(one).subnet_of(ip_network(block["cidr"])) for one in block["except"])  # type: ignore[arg-type]
    for address in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"):
        assert any(ip_address(address) in one for one in refused), address


def test_a_pod_is_given_the_time_to_drain() -> None:
    server = pod_of(named("Deployment", "perdure-server"))
    (container,) = server["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert Settings().drain_seconds < DRAIN_SECONDS
    assert server["terminationGracePeriodSeconds"] >= pause + DRAIN_SECONDS + 5
    worker = pod_of(named("Deployment", "perdure-worker"))
    args = worker["containers"][0]["args"]
    assert float(args[args.index("--grace") + 1]) == grace_seconds()
    assert worker["terminationGracePeriodSeconds"] >= grace_seconds() + 10


# --- Helm ----------------------------------------------------------------------------------------------------------

CHART: Final = ROOT / "deploy" / "helm" / "perdure"
with_helm = pytest.mark.skipif(sys.platform != "linux", reason="the chart's engine is installed on Linux only")


def chart(release: str, values: Json) -> Json:
    """The engine's output, in a separate process: the engine brings the run-time of another language."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.chart", release, json.dumps(values)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise ValueError(done.stderr)
    found: Json = json.loads(done.stdout)
    return found


@with_helm
def test_the_manifests_are_the_chart_with_its_defaults() -> None:
    """`python -m scripts.chart --write` writes them."""
    found = chart("perdure", {})
    assert [one["error"] for one in found["lint"]] == ["icon is recommended"]
    rendered = {name: text for name, text in found["files"].items() if name.endswith(".yaml")}
    assert rendered == {
        path.name: path.read_text(encoding="utf-8") for path in MANIFESTS if path.name != "secret.example.yaml"
    }


@with_helm
def test_a_release_with_other_values_keeps_to_the_schemas_and_to_itself() -> None:
    worker = {"image": "shop:2", "replicas": 0, "app": "/srv/shop.py", "secret": "keys", "graceSeconds": 600}
    values = {
        "imagePullSecrets": [{"name": "registry"}],
        "server": {"image": "perdure@sha256:1", "replicas": 3, "env": {"PERDURE_PROXIES": None}, "resources": None},
        "workers": {"worker": None, "v1": worker, "v2": {**worker, "env": {"PERDURE_DEPLOYMENT": "2"}}},
    }
    found = [one for text in chart("shop", values)["files"].values() for one in yaml.safe_load_all(text)]
    found = [one for one in found if isinstance(one, dict) and "kind" in one]
    for manifest in found:
        kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)
        assert manifest["metadata"]["name"].split("-")[0] == "shop"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "shop"
    deployments = {one["metadata"]["name"]: one["spec"] for one in found if one["kind"] == "Deployment"}
    assert {name: spec["replicas"] for name, spec in deployments.items()} == {
        "shop-server": 3,
        "shop-v1": 0,
        "shop-v2": 0,
    }
    selectors = {json.dumps(spec["selector"], sort_keys=True) for spec in deployments.values()}
    assert len(selectors) == 3
    for spec in deployments.values():
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        assert spec["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    pod = deployments["shop-v2"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 615
    assert pod["containers"][0]["args"] == ["work", "/srv/shop.py", "--grace", "600"]
    assert pod["containers"][0]["env"] == [
        {"name": "PERDURE_URL", "value": "http://shop:8080"},
        {"name": "PERDURE_DEPLOYMENT", "value": "2"},
    ]


@with_helm
@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"server": {"replica": 3}}, "/server"),
        ({"server": {"replicas": "3"}}, "/server/replicas"),
        ({"server": {"env": {"PERDURE_PORT": 80}}}, "/server/env/PERDURE_PORT"),
        ({"workers": {"v2": {"image": "shop:2"}}}, "/workers/v2"),
        ({"workers": {"server": {}}}, "server"),
    ],
)
def test_the_schema_of_the_chart_s_values_refuses_a_mistake(values: Json, where: str) -> None:
    with pytest.raises(ValueError, match=f"(at|propertyName) '{where}'"):
        chart("perdure", values)


@with_helm
def test_an_ingress_needs_its_network() -> None:
    ingress = {"enabled": True, "host": "perdure.example.com", "className": "nginx", "tlsSecret": "cert"}
    for env in ({}, {"PERDURE_PROXIES": ""}, {"PERDURE_PROXIES": None}):
        with pytest.raises(ValueError, match=r"An ingress needs server\.env\.PERDURE_PROXIES"):
            chart("perdure", {"ingress": ingress, "server": {"env": env}})
    values = {"ingress": ingress, "server": {"env": {"PERDURE_PROXIES": "10.42.7.0/24"}}}
    found = list(yaml.safe_load_all(chart("perdure", values)["files"]["server.yaml"]))
    [made] = [one for one in found if one["kind"] == "Ingress"]
    kubernetes_validate.validate(made, KUBERNETES[-1], strict=True)
    [rule] = made["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "perdure", "port": {"name": "http"}}


def test_the_versions_of_the_chart_are_the_project_s() -> None:
    said = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert said["version"] == said["appVersion"] == project["version"]
    images = {container["image"] for one in manifests() for container in pod_of(one).get("containers", ())}
    assert images == {f"perdure-{name}:{project['version']}" for name in ("server", "worker")}


# --- systemd -------------------------------------------------------------------------------------------------------

UNITS: Final = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
PROGRAM: Final = "/srv/perdure/venv/bin/perdure"


def unit(path: Path) -> dict[str, str]:
    """What its [Service] says."""
    service = path.read_text(encoding="utf-8").partition("[Service]")[2].partition("[Install]")[0]
    return dict(line.split("=", 1) for line in service.splitlines() if line and not line.startswith("#"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units_and_finds_them_hardened(tmp_path: Path) -> None:
    assert len(UNITS) == 2
    for path in UNITS:
        text = path.read_text(encoding="utf-8").replace(PROGRAM, str(Path(sys.executable).parent / "perdure"))
        (tmp_path / path.name.replace("@", "@1")).write_text(text)
    for path in tmp_path.iterdir():
        for check in (["verify", "--man=no"], ["security", "--offline=true", "--no-pager", "--threshold=20"]):
            done = subprocess.run(["systemd-analyze", *check, path], capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda one: one.stem)
def test_a_unit_gives_the_time_to_drain_and_never_gives_up(path: Path) -> None:
    found = unit(path)
    assert int(found["TimeoutStopSec"]) > max(DRAIN_SECONDS, grace_seconds())
    assert (found["Restart"], found["User"]) == ("always", "perdure")
    assert "StartLimitIntervalSec=0\n" in path.read_text(encoding="utf-8")


# --- commands ------------------------------------------------------------------------------------------------------


def commands() -> dict[str, list[str]]:
    """Every command of `perdure` that the files start, by place."""
    found = {f"image {name}": json.loads(said(name, "CMD") or "[]") for name in ("server", "worker")}
    for name, service in compose()["services"].items():
        if "command" in service:
            found[f"service {name}"] = service["command"]
    for manifest in manifests():
        for container in pod_of(manifest).get("containers", ()):
            found[f"{manifest['kind']} {container['name']}"] = container["args"]
    for path in UNITS:
        program, *found[path.name] = unit(path)["ExecStart"].split()
        assert program == PROGRAM
    return found


@pytest.mark.parametrize("where", sorted(commands()))
def test_a_command_is_understood(where: str) -> None:
    """A command with `--help` at the end prints its options, once all earlier arguments were understood."""
    given = commands()[where]
    options = [part for part in given if part.startswith("--")]
    answer = CliRunner().invoke(app, [given[0], "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert answer.exit_code == 0, answer.output
    assert all(option in answer.output for option in options)
    assert CliRunner().invoke(app, [*given, "--help"]).exit_code == 0


def test_the_application_of_the_worker_image_has_a_workflow() -> None:
    from perdure.cli.processes.app_loader import load as load_target

    assert list(load_target(str(ROOT / "deploy" / "app.py")).workflows) == ["greet"]
