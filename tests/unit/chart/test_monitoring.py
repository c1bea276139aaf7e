"""What the chart makes for Prometheus and Grafana, and who may reach the pods."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.charts import CHART, IMAGE, NAME, by_name, helm, render

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("kind", "endpoints"), [("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")]
)
def test_a_monitor_scrapes_every_replica(kind: str, endpoints: str) -> None:
    value = kind[0].lower() + kind[1:]
    assert (kind, NAME) not in render()
    made = render(f"{value}.enabled=true", f"{value}.labels.release=prometheus", f"{value}.interval=15s")
    monitor = made[kind, NAME]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"][endpoints] == [
        {"port": "http", "path": "/metrics", "interval": "15s", "scrapeTimeout": "10s"}
    ]
    labels = made["Service", NAME]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_alerts_are_those_of_the_file_with_prometheus_templates_untouched() -> None:
    rules = render("prometheusRule.enabled=true")["PrometheusRule", NAME]["spec"]
    assert rules == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    assert "{{ $labels.queueworker }}" in str(rules)


def test_the_links_of_the_alerts_lead_to_where_the_runbooks_are_served() -> None:
    rules = render("prometheusRule.enabled=true", "prometheusRule.runbookURL=https://wiki.example/runbooks/")
    alerts = rules["PrometheusRule", NAME]["spec"]["groups"][0]["rules"]
    links = [(alert["alert"], alert["annotations"]["runbook_url"]) for alert in alerts]
    assert links
    assert links == [(name, f"https://wiki.example/runbooks/{name}.md") for name, _ in links]


def test_the_dashboard_is_made_for_grafanas_sidecar_if_there_is_one(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    (chart / "files" / "dashboard.json").write_text('{"title": "{{ not a template of ours }}"}')
    sets = ("--set", IMAGE, "--set", "dashboard.enabled=true")
    made = by_name(helm("template", NAME, str(chart), *sets).stdout)["ConfigMap", f"{NAME}-dashboard"]
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert made["data"] == {"queueworker.json": '{"title": "{{ not a template of ours }}"}'}


def test_a_network_policy_restricts_who_reaches_the_api_and_if_wanted_whom_it_reaches() -> None:
    def policy(*values: str) -> dict[str, Any]:
        spec: dict[str, Any] = render("networkPolicy.enabled=true", *values)["NetworkPolicy", NAME]["spec"]
        return spec

    monitoring = "networkPolicy.ingressFrom[0].namespaceSelector.matchLabels.name=monitoring"
    assert policy()["ingress"] == [{"ports": [{"port": "http"}]}], "without peers, everybody may"
    assert policy()["policyTypes"] == ["Ingress"], "queues and executors may be anywhere"
    peers = policy(monitoring)["ingress"][0]["from"]
    assert peers[1:] == [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    assert peers[0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"], "a standby asks the leader"
    out = policy("networkPolicy.egress[0].ports[0].port=443")
    assert (out["policyTypes"], out["egress"]) == (["Ingress", "Egress"], [{"ports": [{"port": 443}]}])
