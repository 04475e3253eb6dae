"""The chart: Kubernetes takes what it makes, and it says nothing that the program does not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import kubernetes_validate
import pytest
import yaml
from helm_chart import CHART, NAMESPACE, Refused, complaints, needs_helm, rendered

from deploy.helm import generate
from stream.acls import rules_of, to_strimzi
from stream.groups import group_of
from stream.settings import Settings, load_settings
from stream.topic_forms import to_strimzi as topics_to_strimzi
from stream.topic_names import SOURCES, full_name
from stream.topics import TOPICS
from stream.worker import PROCESSES, STOP_DEADLINE_S, metrics_port

pytestmark = needs_helm

Resource = dict[str, Any]

PLAIN: Resource = {}
FULL: Resource = {
    "settings": {
        "topic_prefix": "Shop_",
        "group_prefix": "pf",
        "security_protocol": "SASL_SSL",
        "weights": {"click": 0.6},
        "recommendation_ttl_s": 1_000_000,
    },
    "encode": {
        "gpu": {"count": 1, "runtimeClassName": "nvidia"},
        "settings": {"encoder_batch": 512},
        "autoscaling": {"enabled": True},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "nodeSelector": {"gpu": "yes"},
        "extraEnv": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
        "extraVolumes": [{"name": "model", "persistentVolumeClaim": {"claimName": "model"}}],
        "extraVolumeMounts": [{"name": "model", "mountPath": "/models", "readOnly": True}],
    },
    "preference": {
        "autoscaling": {"enabled": True},
        "storage": {"className": "fast", "retainWhenScaled": False},
    },
    "neighbours": {"autoscaling": {"enabled": True}},
    "image": {"pullSecrets": [{"name": "registry"}]},
    "topics": {"by": "strimzi"},
    "strimzi": {"cluster": "events", "users": {"enabled": True}},
    "tls": {
        "caSecret": "events-cluster-ca-cert",  # pragma: allowlist secret
        "certSecret": "me",  # pragma: allowlist secret
        "keyPasswordKey": "pw",  # pragma: allowlist secret
    },
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
    "networkPolicy": {
        "brokers": [{"podSelector": {"matchLabels": {"strimzi.io/cluster": "events"}}}],
        "extraEgress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
    },
    "priorityClassName": "shop",
    "podAnnotations": {"team": "shop"},
}
#: A second state beside that of FULL.
SECOND: Resource = {**FULL, "settings": {**FULL["settings"], "state_prefix": "v2-"}}
either_state = pytest.mark.parametrize("values", [FULL, SECOND], ids=["first", "second"])
HPA: Resource = {**FULL, "autoscaling": {"by": "hpa"}, "topics": {"by": "job"}}
BARE: Resource = {
    "topics": {"by": "none"},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "serviceAccount": {"create": False},
}
VARIANTS = {"plain": PLAIN, "full": FULL, "hpa": HPA, "bare": BARE}
every_variant = pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)

#: Of other projects' operators: no schema of theirs comes with Kubernetes.
OTHERS = {
    "ServiceMonitor",
    "PrometheusRule",
    "ScaledObject",
    "TriggerAuthentication",
    "KafkaTopic",
    "KafkaUser",
}


def of_kind(kind: str, values: Resource) -> list[Resource]:
    return [resource for resource in rendered(**values) if resource["kind"] == kind]


def workloads(values: Resource) -> dict[str, Resource]:
    """Return the workloads of the processes, by process."""
    found = [r for r in rendered(**values) if r["kind"] in {"Deployment", "StatefulSet"}]
    return {r["metadata"]["labels"]["app.kubernetes.io/component"]: r for r in found}


def pods(values: Resource) -> Iterator[Resource]:
    """Yield the spec of every pod that there would be."""
    for resource in rendered(**values):
        if resource["kind"] == "Pod":
            yield resource["spec"]
        elif "template" in resource.get("spec", {}):
            yield resource["spec"]["template"]["spec"]


def environment(pod: Resource, values: Resource) -> dict[str, str]:
    """Return what a pod's only container finds in its environment, names of fields as they are."""
    maps = {r["metadata"]["name"]: r["data"] or {} for r in of_kind("ConfigMap", values)}
    (container,) = pod["containers"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for variable in container["env"]:
        found[variable["name"]] = variable.get("value", "(from elsewhere)")
    return found


def settings_of(pod: Resource, values: Resource) -> Settings:
    prefix = "PREFSTREAM_"
    found = {n: v for n, v in environment(pod, values).items() if n.startswith(prefix)}
    names = {name.removeprefix(prefix).lower() for name in found}
    assert names <= set(Settings.model_fields)
    # A password that is in a file is not at hand here.
    found.pop("PREFSTREAM_SASL_PASSWORD_FILE", None)
    found["PREFSTREAM_SASL_PASSWORD"] = "secret"  # pragma: allowlist secret
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        return load_settings(_env_file=None)


def test_helm_has_nothing_against_it():
    assert complaints() == []


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@every_variant
def test_kubernetes_takes_every_resource(values, version):
    found = rendered(**values)
    for resource in (r for r in found if r["kind"] not in OTHERS):
        kubernetes_validate.validate(resource, version, strict=True)
    names = [(r["kind"], r["metadata"]["name"]) for r in found]
    assert len(set(names)) == len(names)


def test_the_variants_have_every_kind_of_resource_between_them():
    kinds = {r["kind"] for values in VARIANTS.values() for r in rendered(**values)}
    assert kinds >= OTHERS
    assert "HorizontalPodAutoscaler" in kinds


@pytest.mark.parametrize("name", ["PROGRAM", "SCHEMA"])
def test_what_is_generated_is_as_the_program_has_it_now(name):
    path = getattr(generate, name)
    made = {"PROGRAM": generate.program, "SCHEMA": generate.schema}[name]()
    assert json.loads(path.read_text()) == made, "run: python deploy/helm/generate.py"


@every_variant
def test_every_variable_is_a_setting_and_its_value_is_allowed(values):
    for pod in pods(values):
        settings_of(pod, values)


@every_variant
def test_processes_agree_on_everything_but_what_is_said_of_one(values):
    found = [
        settings_of(w["spec"]["template"]["spec"], values).model_dump()
        for w in workloads(values).values()
    ]
    assert len(found) == len(PROCESSES)
    differing = {name for name in found[0] if len({str(one[name]) for one in found}) > 1}
    assert differing <= {"encoder_device", "encoder_batch", "sasl_username"}


def test_a_million_is_written_out():
    (shared, *_) = of_kind("ConfigMap", FULL)
    assert shared["data"]["PREFSTREAM_RECOMMENDATION_TTL_S"] == "1000000"
    assert json.loads(shared["data"]["PREFSTREAM_WEIGHTS"]) == {"click": 0.6}


@every_variant
def test_nothing_runs_as_root_or_writes_where_it_need_not(values):
    for pod in pods(values):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        # A service called prefstream-metrics would set PREFSTREAM_METRICS_PORT.
        assert pod["enableServiceLinks"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert writable == {"/tmp", "/var/lib/prefstream"}


def test_the_user_is_that_of_the_image():
    dockerfile = (CHART.parents[1] / "Dockerfile").read_text()
    assert "\nUSER 10001\n" in dockerfile
    assert "--uid 10001" in dockerfile


@every_variant
def test_every_mount_has_its_volume(values):
    for workload in rendered(**values):
        if "template" not in workload.get("spec", {}):
            continue
        pod = workload["spec"]["template"]["spec"]
        claims = workload["spec"].get("volumeClaimTemplates", [])
        there = {v["name"] for v in pod["volumes"]} | {c["metadata"]["name"] for c in claims}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == there


def test_who_keeps_state_has_a_volume_and_a_name_of_its_own():
    for name in ("preference", "neighbours"):
        workload = workloads(PLAIN)[name]
        assert workload["kind"] == "StatefulSet"
        (claim,) = workload["spec"]["volumeClaimTemplates"]
        assert claim["metadata"]["name"] == "state"
        pod = workload["spec"]["template"]["spec"]
        env = {v["name"]: v for v in pod["containers"][0]["env"]}
        pod_name = {"fieldRef": {"fieldPath": "metadata.name"}}
        assert env["PREFSTREAM_INSTANCE_ID"]["valueFrom"] == pod_name
        (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "state"]
        assert mount["mountPath"] == env["PREFSTREAM_STATE_DIR"]["value"]


@every_variant
def test_probes_ask_the_port_that_the_process_listens_on(values):
    for name, workload in workloads(values).items():
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        settings = settings_of(pod, values)
        assert settings.metrics_host == "0.0.0.0"
        assert container["ports"] == [
            {"name": "metrics", "containerPort": metrics_port(settings, cast(Any, name))}
        ]
        asked = {
            probe: container[f"{probe}Probe"]["httpGet"]
            for probe in ("startup", "liveness", "readiness")
        }
        assert asked == {
            "startup": {"path": "/live", "port": "metrics"},
            "liveness": {"path": "/live", "port": "metrics"},
            "readiness": {"path": "/ready", "port": "metrics"},
        }


def test_a_worker_may_take_as_long_to_stop_as_it_may_take():
    for workload in workloads(PLAIN).values():
        grace_s = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        # The parent waits five seconds longer than its processes may take.
        assert grace_s > STOP_DEADLINE_S + 5


@pytest.mark.parametrize("command", [["worker", "--tier", "users"], ["topics", "check"]])
def test_the_commands_are_the_program_s(command):
    used = [pod["containers"][0]["args"] for values in VARIANTS.values() for pod in pods(values)]
    assert command in used
    for arguments in {tuple(arguments) for arguments in used}:
        done = subprocess.run(
            [sys.executable, "-m", "stream.cli", *arguments, "--help"], capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()


@every_variant
def test_selectors_find_their_pods_and_no_others(values):
    labels = {
        name: workload["spec"]["template"]["metadata"]["labels"]
        for name, workload in workloads(values).items()
    }
    selectors = [
        (r["metadata"]["labels"]["app.kubernetes.io/component"], _selector(r))
        for r in rendered(**values)
        if r["kind"] in {"Service", "Deployment", "StatefulSet", "PodDisruptionBudget"}
    ]
    for component, selector in selectors:
        found = [name for name, own in labels.items() if selector.items() <= own.items()]
        assert found == [component]


def _selector(resource: Resource) -> Resource:
    selector = resource["spec"]["selector"]
    return cast(Resource, selector.get("matchLabels", selector))


def test_nothing_comes_in_but_to_metrics_and_nothing_goes_out_but_to_brokers_and_names():
    (policy,) = of_kind("NetworkPolicy", PLAIN)
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (into,) = policy["spec"]["ingress"]
    listening = {metrics_port(Settings(), name) for name in PROCESSES}
    assert {port["port"] for port in into["ports"]} == listening
    assert into["from"]
    out = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert sorted(out) == [53, 53, 9092, 9093]
    for pod in chain.from_iterable(_templates(values) for values in (PLAIN, FULL)):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod.items()


def _templates(values: Resource) -> Iterator[Resource]:
    for resource in rendered(**values):
        if "template" in resource.get("spec", {}):
            yield resource["spec"]["template"]["metadata"]["labels"]


def test_the_alerts_are_those_that_are_tested():
    (rule,) = of_kind("PrometheusRule", FULL)
    tested = yaml.safe_load((CHART.parents[1] / "prometheus/alerts.yml").read_text())
    assert rule["spec"] == tested


def test_grafana_is_given_the_dashboards_that_are_tested():
    folder = CHART.parents[1] / "grafana/dashboards"
    found = {
        name: (json.loads(text), labelled["metadata"])
        for labelled in of_kind("ConfigMap", FULL)
        if "-dashboard-" in labelled["metadata"]["name"]
        for name, text in labelled["data"].items()
    }
    tested = {f"prefstream-{path.name}": json.loads(path.read_text()) for path in folder.iterdir()}
    assert {name: dashboard for name, (dashboard, _) in found.items()} == tested
    for _, metadata in found.values():
        assert metadata["labels"]["grafana_dashboard"] == "1"
        assert metadata["annotations"] == {"grafana_folder": "prefstream"}
    assert [m for m in of_kind("ConfigMap", PLAIN) if "-dashboard-" in m["metadata"]["name"]] == []


def test_series_carry_the_job_and_tier_that_alerts_and_dashboards_go_by():
    (monitor,) = of_kind("ServiceMonitor", FULL)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["endpoints"]
    relabelled = {rule["targetLabel"]: rule for rule in endpoint["relabelings"]}
    assert relabelled["job"]["replacement"] == "prefstream"
    assert relabelled["tier"]["sourceLabels"] == [
        "__meta_kubernetes_service_label_app_kubernetes_io_component"
    ]
    services = of_kind("Service", FULL)
    selector = monitor["spec"]["selector"]["matchLabels"]
    assert [s for s in services if selector.items() <= s["metadata"]["labels"].items()] == services
    assert {port["name"] for s in services for port in s["spec"]["ports"]} == {endpoint["port"]}


@either_state
def test_kafka_topics_are_those_that_the_program_prints(values):
    settings = _settings_of(values)
    printed = json.loads(topics_to_strimzi(settings, "events"))["items"]
    if values is SECOND:
        # The first installation has made those that both read.
        shared = {full_name(settings, topic) for topic in SOURCES}
        printed = [topic for topic in printed if topic["spec"]["topicName"] not in shared]
    found = of_kind("KafkaTopic", values)
    assert [topic["spec"] for topic in found] == [topic["spec"] for topic in printed]
    for ours, theirs in zip(found, printed, strict=True):
        assert ours["apiVersion"] == theirs["apiVersion"]
        assert ours["metadata"]["name"] == theirs["metadata"]["name"]
        assert theirs["metadata"]["labels"].items() <= ours["metadata"]["labels"].items()
        assert ours["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert len(found) == len(TOPICS) - (len(SOURCES) if values is SECOND else 0)


@either_state
@pytest.mark.parametrize("role", ["encode", "preference", "operator"])
def test_kafka_users_have_the_rights_that_the_program_prints(role, values):
    name = f"shop-prefstream-{role}"
    printed = json.loads(to_strimzi(rules_of(role, _settings_of(values)), name, "events"))
    (user,) = [u for u in of_kind("KafkaUser", values) if u["metadata"]["name"] == name]
    # In the order of full names, which a prefix of some changes.
    for one in (user, printed):
        one["spec"]["authorization"]["acls"].sort(key=lambda rule: str(rule["resource"]))
    assert user["spec"] == printed["spec"]
    assert user["apiVersion"] == printed["apiVersion"]


def _settings_of(values: Resource) -> Settings:
    return settings_of(workloads(values)["preference"]["spec"]["template"]["spec"], values)


def test_each_process_logs_in_as_the_user_that_was_made_for_it():
    users = {user["metadata"]["name"] for user in of_kind("KafkaUser", FULL)}
    for name, workload in workloads(FULL).items():
        pod = workload["spec"]["template"]["spec"]
        (auth,) = [v["secret"] for v in pod["volumes"] if v["name"] == "auth"]
        role = "encode" if name == "encode" else "preference"
        assert auth["secretName"] == settings_of(pod, FULL).sasl_username
        assert auth["secretName"] == f"shop-prefstream-{role}"
        assert auth["secretName"] in users


@either_state
@pytest.mark.parametrize("name", PROCESSES)
def test_scaling_asks_for_the_lag_of_the_process_s_own_group(name, values):
    settings = _settings_of(values)
    (scaled,) = [s for s in of_kind("ScaledObject", values) if s["metadata"]["name"].endswith(name)]
    workload = workloads(values)[name]
    assert "replicas" not in workload["spec"]  # or each upgrade would undo the scaling
    target = scaled["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (workload["kind"], workload["metadata"]["name"])
    topics = json.loads((CHART / "files/program.json").read_text())["processes"][name]["topics"]
    asked = [trigger["metadata"] for trigger in scaled["spec"]["triggers"]]
    assert [one["topic"] for one in asked] == [full_name(settings, topic) for topic in topics]
    assert {one["consumerGroup"] for one in asked} == {group_of(settings, name)}
    assert {one["sasl"] for one in asked} == {"scram_sha512"}
    if values is SECOND:
        return
    (external,) = [h for h in of_kind("HorizontalPodAutoscaler", HPA) if name in str(h["metadata"])]
    (metric,) = external["spec"]["metrics"]
    selector = metric["external"]["metric"]["selector"]["matchLabels"]
    assert selector == {"group": group_of(settings, name)}


def test_an_encoder_on_a_gpu_has_the_image_the_device_and_the_resource():
    pod = workloads(FULL)["encode"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"].endswith("-gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert settings_of(pod, FULL).encoder_device == "cuda"
    others = [w for name, w in workloads(FULL).items() if name != "encode"]
    images = [w["spec"]["template"]["spec"]["containers"][0]["image"] for w in others]
    assert all(image.endswith("-cpu") for image in images)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"settings": {"partitoins": 4}}, "partitoins"),
        ({"settings": {"partitions": 0}}, "partitions"),
        ({"settings": {"instance_id": "me"}}, "instance_id"),
        ({"preference": {"replicas": 13}}, "13 pods for 12 partitions"),
        ({"settings": {"security_protocol": "SASL_SSL"}}, "auth.existingSecret"),
        ({"topics": {"by": "magic"}}, "topics"),
        ({"terminationGracePeriodSeconds": 10}, "terminationGracePeriodSeconds"),
        ({"preferences": {}}, "preferences"),
    ],
    ids=str,
)
def test_values_that_cannot_be_meant_are_refused_by_name(values, named):
    with pytest.raises(Refused, match=named):
        rendered(**values)


def test_the_namespace_is_left_to_the_release():
    others = {r["metadata"].get("namespace") for r in rendered(**PLAIN)}
    assert others <= {None, NAMESPACE}


def test_the_chart_is_of_the_program_s_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in project
