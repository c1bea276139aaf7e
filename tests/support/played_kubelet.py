"""Plays the kubelet of one node for `kubectl logs`: whatever container is asked for, its log is one file."""

from __future__ import annotations

import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from tests.support.certificates import make_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.controlplane.conftest import Kubectl

NODE = "node-1"


@contextmanager
def played_kubelet(kubectl: Kubectl, folder: Path, log: Path) -> Iterator[None]:
    """The node is there until the end of the block. `folder` takes a certificate."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = log.read_bytes() if self.path.startswith("/containerLogs/") else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = _tls(folder).wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        kubectl("apply", "-f", "-", input=json.dumps(node))
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_address[1]}},
        }
        kubectl("patch", "node", NODE, "--subresource=status", "-p", json.dumps({"status": status}))
        try:
            yield
        finally:
            kubectl("delete", "node", NODE, "--ignore-not-found")
            server.shutdown()


def _tls(folder: Path) -> ssl.SSLContext:
    """The API server does not verify a kubelet's certificate unless it is told an authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*make_certificate(folder, f"DNS:{NODE}"))
    return context
