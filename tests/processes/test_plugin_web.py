"""`kubectl queueworker web`: forwards a port by kubectl, for as long as the person likes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PLUGIN = str(Path(sys.executable).with_name("kubectl-queueworker"))
# kubectl writes a line for each connection; a pipe takes some 2,000 of them.
KUBECTL = """#!/bin/sh
echo 'Forwarding from 127.0.0.1:43210 -> 8084'
n=0
while [ $n -lt 5000 ]; do echo 'Handling connection for 43210'; n=$((n + 1)); done
touch "$FINISHED"
"""


def test_the_port_is_forwarded_however_many_connections_kubectl_tells_of(tmp_path: Path) -> None:
    kubectl, finished = tmp_path / "kubectl", tmp_path / "finished"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    said = subprocess.run(
        [PLUGIN, "web", "--no-browser"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FINISHED": str(finished)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.stdout == "http://127.0.0.1:43210  (Ctrl-C ends it)\n"
    assert finished.exists()
