"""The chart renders to what Kubernetes expects. Checked with our own renderer, and with helm where it is."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .gotemplate import Template

CHART = Path(__file__).parents[3] / "helm" / "wippy"


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return result


def render(values: dict[str, Any] | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """The documents of the chart by kind and name, for a release called ``shop``."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    context = {
        "Values": merged(yaml.safe_load((CHART / "values.yaml").read_text()), values or {}),
        "Release": {"Name": "shop", "Namespace": "prod", "Service": "Helm"},
        "Chart": {"Name": chart["name"], "Version": chart["version"], "AppVersion": chart["appVersion"]},
    }
    files = {path.name: path.read_text() for path in (CHART / "templates").iterdir()}
    template = Template(files)
    texts = [template.render(name, context) for name in sorted(files) if name.endswith(".yaml")]
    documents = [document for text in texts for document in yaml.safe_load_all(text) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def container(documents: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    (found,) = documents["StatefulSet", "shop-wippy"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "replicas": 5,
        "cluster": "orders",
        "existingSecret": "credentials",
        "app": {"files": {"_index.yaml": "version: '1.0'\nnamespace: app\nentries: []\n"}},
        "settings": {"logger": {"encoding": "json"}},
        "nodeLabels": {"zone": "a", "disk": "ssd"},
        "imagePullSecrets": [{"name": "registry"}],
        "podAnnotations": {"team": "a"},
        "podLabels": {"tier": "backend"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "service": {"annotations": {"a": "b"}},
        "serviceAccount": {"annotations": {"role": "r"}},
    },
    "as little as possible": {
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
        "metrics": {"annotations": False},
        "topologySpread": False,
    },
}


def test_default_values_render_every_object() -> None:
    kinds = sorted(kind for kind, _ in render())
    assert kinds == ["ConfigMap", "ConfigMap", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"]


def test_selectors_find_the_pods() -> None:
    documents = render(VARIANTS["everything"])
    labels = documents["StatefulSet", "shop-wippy"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        documents["StatefulSet", "shop-wippy"]["spec"]["selector"]["matchLabels"],
        documents["PodDisruptionBudget", "shop-wippy"]["spec"]["selector"]["matchLabels"],
        documents["Service", "shop-wippy"]["spec"]["selector"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()


def test_addresses_and_cluster_reach_the_nodes_as_environment() -> None:
    documents = render({"nats": {"urls": ["nats://a:4222", "nats://b:4222"]}, "etcd": {"urls": ["https://e:2379"]}})
    assert documents["ConfigMap", "shop-wippy"]["data"] == {
        "WIPPY_CLUSTER": "shop",
        "WIPPY_NATS": "nats://a:4222,nats://b:4222",
        "WIPPY_ETCD": "https://e:2379",
    }
    assert {"configMapRef": {"name": "shop-wippy"}} in container(documents)["envFrom"]


def test_a_secret_is_read_when_one_is_named() -> None:
    assert len(container(render())["envFrom"]) == 1
    assert {"secretRef": {"name": "credentials"}} in container(render(VARIANTS["everything"]))["envFrom"]


def test_a_node_is_named_after_its_pod() -> None:
    node = container(render())
    position = node["args"].index("--node")
    assert node["args"][position + 1] == "$(POD_NAME)"
    assert node["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_probes_ask_the_metrics_port() -> None:
    node = container(render({"metrics": {"port": 9000}}))
    paths = {probe: node[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe", "startupProbe")}
    assert paths["livenessProbe"] == {"path": "/livez", "port": "metrics"}
    assert paths["readinessProbe"] == {"path": "/readyz", "port": "metrics"}
    assert paths["startupProbe"] == {"path": "/readyz", "port": "metrics"}
    assert node["ports"] == [{"name": "metrics", "containerPort": 9000}]
    assert "metrics.port=9000" in node["args"]


def test_the_grace_period_is_longer_than_the_nodes_shutdown() -> None:
    from node.settings import Settings

    spec = render()["StatefulSet", "shop-wippy"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > Settings().shutdown.timeout.total_seconds()


def test_settings_in_the_arguments_and_the_file_are_settings_of_a_node(tmp_path: Path) -> None:
    from node.settings import load_settings

    documents = render(VARIANTS["everything"])
    file = tmp_path / "settings.yaml"
    file.write_text(documents["ConfigMap", "shop-wippy-settings"]["data"]["settings.yaml"])
    arguments = container(documents)["args"]
    sets = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--set"]
    environ = documents["ConfigMap", "shop-wippy"]["data"]
    settings = load_settings(tmp_path, files=[file], sets=sets, environ=environ)
    assert settings.labels == {"zone": "a", "disk": "ssd"}
    assert settings.logger.encoding == "json"
    assert settings.cluster.name == "orders"
    assert settings.metrics.host == "0.0.0.0"


def test_files_of_an_application_are_mounted() -> None:
    documents = render(VARIANTS["everything"])
    assert "_index.yaml" in documents["ConfigMap", "shop-wippy-app"]["data"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(documents)["volumeMounts"]}
    assert mounts["app"] == "/app/src"


def test_changed_settings_restart_the_pods() -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = render(values)["StatefulSet", "shop-wippy"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum({}) != checksum({"settings": {"logger": {"level": "debug"}}})


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_no_container_may_do_more_than_it_needs(variant: dict[str, Any]) -> None:
    documents = render(variant)
    assert container(documents)["securityContext"]["readOnlyRootFilesystem"] is True
    assert documents["StatefulSet", "shop-wippy"]["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_what_is_switched_off_is_not_rendered() -> None:
    kinds = {kind for kind, _ in render(VARIANTS["as little as possible"])}
    assert not kinds & {"PodDisruptionBudget", "ServiceAccount"}


def test_notes_name_commands_that_exist() -> None:
    chart = Template({path.name: path.read_text() for path in (CHART / "templates").iterdir()})
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    context = {"Values": values, "Release": {"Name": "shop", "Namespace": "prod"}, "Chart": {}}
    assert "exec shop-wippy-0 -- wippy nodes" in chart.render("NOTES.txt", context)


if shutil.which("helm"):

    @pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
    def test_helm_renders_the_same(variant: dict[str, Any], tmp_path: Path) -> None:
        values = tmp_path / "values.yaml"
        values.write_text(yaml.safe_dump(variant))
        command = [
            "helm",
            "template",
            "shop",
            str(CHART),
            "--namespace",
            "prod",
            "--kube-version",
            "1.30",
            "-f",
            str(values),
        ]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        by_helm = [document for document in yaml.safe_load_all(text) if document]
        named = {(document["kind"], document["metadata"]["name"]): document for document in by_helm}
        ours = render(variant)
        for document in (named, ours):
            # yaml printed by two libraries: its text differs, and so does its checksum
            document["StatefulSet", "shop-wippy"]["spec"]["template"]["metadata"]["annotations"].pop(
                "checksum/settings"
            )
            settings = document["ConfigMap", "shop-wippy-settings"]["data"]
            settings["settings.yaml"] = yaml.safe_load(settings["settings.yaml"])
        assert named == ours
