"""An API of external metrics, to be run in a pod: its one metric is the number of tasks that a queue has.

`python metrics_server.py CERTIFICATE QUEUE_URL`, where CERTIFICATE is the text of a PEM file with its key. Only the
standard library is used, because `support/autoscaling.py` hands this file's text to Python.
"""

import json
import ssl
import sys
import tempfile
import urllib.request
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API = "external.metrics.k8s.io/v1beta1"
METRIC = "queueworker_tasks"
PORT = 8443


class Handler(BaseHTTPRequestHandler):
    """Answers the API server: what there is, and the metric."""

    queue_url = ""

    def do_GET(self) -> None:
        """`/apis/GROUP/VERSION`, and below it `/namespaces/NAMESPACE/METRIC`."""
        path = self.path.partition("?")[0].strip("/")
        if path == f"apis/{API}":
            self._answer(resources())
        elif path.startswith(f"apis/{API}/namespaces/") and path.endswith(f"/{METRIC}"):
            self._answer(values(waiting(self.queue_url)))
        else:
            self.send_error(404)

    def _answer(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def resources() -> dict[str, Any]:
    metric = {
        "name": METRIC,
        "singularName": "",
        "namespaced": True,
        "kind": "ExternalMetricValueList",
        "verbs": ["get"],
    }
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API, "resources": [metric]}


def values(tasks: int) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    item = {"metricName": METRIC, "metricLabels": {}, "timestamp": now, "value": str(tasks)}
    return {"kind": "ExternalMetricValueList", "apiVersion": API, "metadata": {}, "items": [item]}


def waiting(queue_url: str) -> int:
    """The tasks that wait or run."""
    with urllib.request.urlopen(f"{queue_url}/status", timeout=5) as answer:
        return int(json.load(answer)["total_tasks"])


def main(certificate: str, queue_url: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificate)
        file.flush()
        context.load_cert_chain(file.name)
    Handler.queue_url = queue_url
    server = ThreadingHTTPServer(("", PORT), Handler)
    # Hands are shaken in the thread of each connection: one that never speaks keeps no other one waiting.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
