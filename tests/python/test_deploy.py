"""The files of deploy/: manifests and the compose file against their schemas, and against the program that they start."""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
# The oldest version whose preStop can sleep without a program in the image, and the newest that the validator knows.
VERSIONS = ["1.30", "1.37"]
# Read by kustomize and by Helm, not by a cluster.
NOT_MANIFESTS = {"kustomization.yaml", "prometheus-adapter.yaml"}
# Variables of the program that are no options.
OTHER_VARIABLES = {"LIKEWISE_CONFIG", "LIKEWISE_CACHE_DIR", "LIKEWISE_LOG", "LIKEWISE_REDIS_MAC_KEY"}


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def manifests():
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name not in NOT_MANIFESTS:
            for resource in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                yield pytest.param(resource, id=f"{path.stem}-{resource['kind']}-{resource['metadata']['name']}")


RESOURCES = [parameter.values[0] for parameter in manifests()]
STATEFUL_SETS = [resource for resource in RESOURCES if resource["kind"] == "StatefulSet"]


def named(kind, name):
    return next(found for found in RESOURCES if found["kind"] == kind and found["metadata"]["name"] == name)


def pod(stateful_set):
    return stateful_set["spec"]["template"]["spec"]


NODE = pod(named("StatefulSet", "likewise"))
COMPOSE = yaml.safe_load(read("deploy/compose.yaml"))


def options():
    """Every option of the example, those that are commented out included, as it is called in the environment."""
    section, found = "", set()
    for line in read("examples/config.toml").splitlines():
        if table := re.fullmatch(r"\[([\w.]+)\]", line):
            section = table[1]
        elif option := re.match(r"(?:# )?(\w+) = ", line):
            found.add("__".join(["LIKEWISE", *section.split("."), option[1]]).upper())
    assert len(found) > 100
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", list(manifests()))
def test_a_manifest_is_valid(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)


def test_the_validator_refuses_what_is_unknown():
    broken = json.loads(json.dumps(named("StatefulSet", "likewise")))
    broken["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_every_kind_that_a_deployment_needs_is_there():
    kinds = {resource["kind"] for resource in RESOURCES}
    assert kinds >= {
        "Namespace", "ConfigMap", "Secret", "ServiceAccount", "StatefulSet", "Service", "PodDisruptionBudget",
        "HorizontalPodAutoscaler", "NetworkPolicy",
    }
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert sorted(listed) == sorted(path.name for path in KUBERNETES.glob("*.yaml") if path.name not in NOT_MANIFESTS)


@pytest.mark.parametrize("stateful_set", STATEFUL_SETS, ids=lambda found: found["metadata"]["name"])
def test_pods_have_no_privileges_and_a_read_only_root(stateful_set):
    spec = pod(stateful_set)
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False and context["privileged"] is False
    assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    claims = {claim["metadata"]["name"] for claim in stateful_set["spec"]["volumeClaimTemplates"]}
    volumes = claims | {volume["name"] for volume in spec.get("volumes", [])}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_selectors_find_the_pods():
    labels = [found["spec"]["template"]["metadata"]["labels"] for found in STATEFUL_SETS]
    selectors = [found["spec"]["selector"]["matchLabels"] for found in STATEFUL_SETS]
    selectors += [found["spec"]["selector"] for found in RESOURCES if found["kind"] == "Service"]
    selectors += [named("PodDisruptionBudget", "likewise")["spec"]["selector"]["matchLabels"]]
    selectors += [found["spec"]["podSelector"]["matchLabels"] for found in RESOURCES if found["kind"] == "NetworkPolicy"]
    for selector in selectors:
        assert sum(selector.items() <= of_pod.items() for of_pod in labels) == 1, selector
    for found in STATEFUL_SETS:
        assert named("Service", found["spec"]["serviceName"])["spec"]["clusterIP"] == "None"
    target = named("HorizontalPodAutoscaler", "likewise")["spec"]["scaleTargetRef"]
    assert named(target["kind"], target["name"])


def test_probes_and_ports_are_those_of_the_server():
    paths = json.loads(read("docs/openapi.json"))["paths"]
    (container,) = NODE["containers"]
    probes = [container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert all(probe["path"] in paths and probe["port"] == "http" for probe in probes)
    assert [port["containerPort"] for port in container["ports"]] == [8420]
    assert "EXPOSE 8420" in read("Dockerfile") and "0.0.0.0:8420" in read("Dockerfile")


def test_nodes_have_the_time_to_stop():
    drain = tomllib.loads(read("examples/config.toml"))["http"]["drain_seconds"]
    config = tomllib.loads(named("ConfigMap", "likewise")["data"]["config.toml"])
    assert config["http"]["drain_seconds"] == drain
    before = NODE["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert NODE["terminationGracePeriodSeconds"] > drain + before
    for node in ("node-1", "node-2"):
        assert int(COMPOSE["services"][node]["stop_grace_period"].removesuffix("s")) > drain


def test_the_user_and_the_toolchain_are_those_of_the_image():
    dockerfile = read("Dockerfile")
    user = NODE["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in dockerfile and f":x:{user}:{user}:" in read("deploy/assemble.sh")
    channel = tomllib.loads(read("rust-toolchain.toml"))["toolchain"]["channel"]
    assert f"ARG RUST_VERSION={channel}\n" in dockerfile


def test_the_context_of_the_image_has_what_cargo_reads():
    included = {line.removeprefix("!") for line in read(".dockerignore").splitlines() if line.startswith("!")}
    members = tomllib.loads(read("Cargo.toml"))["workspace"]["members"]
    # .cargo/config.toml says for which processors FAISS is compiled: without it the image would be slow, and nothing would fail.
    assert included >= {".cargo", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "src", *members} - {"."}
    # What the program contains from files elsewhere.
    for source in sorted(ROOT.glob("src/**/*.rs")):
        program = source.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests {")[0]
        for path in re.findall(r'include_(?:bytes|str)!\("(\.\./[^"]+)"\)', program):
            contained = (source.parent / path).resolve().relative_to(ROOT)
            assert contained.parts[0] in included, f"{source} contains {contained}"


def test_the_metrics_of_the_autoscaler_are_exported():
    exported = set(re.findall(r"`(likewise_\w+)`", read("docs/reference/metrics.md")))
    metrics = named("HorizontalPodAutoscaler", "likewise")["spec"]["metrics"]
    scaled_by = {metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods"}
    rules = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text(encoding="utf-8"))["rules"]["custom"]
    assert scaled_by == {rule["name"]["as"] for rule in rules} == {"likewise_load_ratio"} & exported


def test_every_variable_is_an_option():
    known = options() | OTHER_VARIABLES
    variables = {variable["name"] for variable in NODE["containers"][0]["env"]}
    for node in ("node-1", "node-2"):
        variables |= COMPOSE["services"][node]["environment"].keys()
    variables |= set(re.findall(r"\b(LIKEWISE_\w+)=", read("Dockerfile")))
    own = {variable for variable in variables if variable.startswith("LIKEWISE")}
    assert len(own) >= 6 and own <= known, own - known


def test_options_of_the_config_map_exist():
    known = options()
    config = tomllib.loads(named("ConfigMap", "likewise")["data"]["config.toml"])

    def flat(table, path):
        for key, value in table.items():
            yield from flat(value, [*path, key]) if isinstance(value, dict) else ["__".join([*path, key]).upper()]

    found = set(flat(config, ["LIKEWISE"]))
    assert found and found <= known, found - known


def test_secrets_are_empty_until_they_are_set():
    secret = named("Secret", "likewise")["stringData"]
    assert set(secret.values()) == {""}
    references = [variable["valueFrom"]["secretKeyRef"] for found in STATEFUL_SETS
                  for variable in pod(found)["containers"][0]["env"] if "secretKeyRef" in variable.get("valueFrom", {})]
    assert {reference["key"] for reference in references if not reference.get("optional")} == secret.keys()


def test_the_compose_file_is_valid():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, DEPLOY / "compose.yaml"], text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_of_the_compose_file_are_confined_and_watched():
    services = COMPOSE["services"]
    assert services.keys() == {"node-1", "node-2", "valkey", "prometheus"}
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["mem_limit"], name
        # That of the nodes is in their image.
        assert "healthcheck" in service or name.startswith("node-"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        mounted = {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith(".")}
        assert mounted and mounted <= COMPOSE["volumes"].keys(), name
    assert "HEALTHCHECK" in read("Dockerfile")
    assert "ports" not in services["valkey"] and COMPOSE["networks"]["shared"]["internal"]


def test_prometheus_scrapes_the_nodes():
    config = yaml.safe_load(read("deploy/prometheus.yml"))
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["node-1:8420", "node-2:8420"]}]
    (secret,) = COMPOSE["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["prometheus"]["volumes"]]
    assert all(file in mounted for file in config["rule_files"])
    # The alerts are about this job.
    assert f'job="{job["job_name"]}"' in read("examples/alerts.yml")
