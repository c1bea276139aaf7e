"""`web`: forwards a port to the operator's HTTP API, and opens it in a browser, until Ctrl-C."""

from __future__ import annotations

import re
import shutil
import subprocess
import webbrowser
from typing import TYPE_CHECKING

from queueworker.cli.plugin.live import DEFAULT_OPERATOR, PORT_NAME
from queueworker.cli.plugin.problems import Problem

if TYPE_CHECKING:
    from queueworker.cli.plugin.access import Access

_FORWARDING = re.compile(r"Forwarding from (?:127\.0\.0\.1|localhost):(\d+)")
STOP_SECONDS = 5.0


def command(access: Access, kubectl: str) -> list[str]:
    """`kubectl port-forward` to the operator's Service, on a free port of this machine."""
    namespace, _, service = (access.operator or DEFAULT_OPERATOR).partition("/")
    options = [f"--{name}={value}" for name in ("context", "kubeconfig") if (value := getattr(access, name))]
    return [kubectl, "port-forward", f"service/{service}", f":{PORT_NAME}", f"--namespace={namespace}", *options]


def web(access: Access, *, browser: bool) -> None:
    """Returns when kubectl ends, as on Ctrl-C. Raises Problem if the port cannot be forwarded."""
    if "://" in access.operator:
        _tell(access.operator, browser=browser)
        return
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise Problem("kubectl is not on PATH; it forwards the port")
    process = subprocess.Popen(command(access, kubectl), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = next((match for line in process.stdout if (match := _FORWARDING.search(line))), None)
        if found is None:
            raise Problem("kubectl cannot forward a port to the operator; it says why above (see --operator)")
        _tell(f"http://127.0.0.1:{found[1]}", browser=browser)
        for _ in process.stdout:  # a line for each connection: kubectl stops when nobody reads them
            pass
        process.wait()
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _tell(url: str, *, browser: bool) -> None:
    print(f"{url}  (Ctrl-C ends it)", flush=True)
    if browser:
        webbrowser.open(url)
