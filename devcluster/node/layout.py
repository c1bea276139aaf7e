"""Where the node's files, addresses and names are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODE_NAME = "queueworker-node"
BRIDGE = "qw-node0"
# Not the networks of podman (10.88.0.0/16), Docker (172.17.0.0/16), kubeadm (10.96.0.0/12) or kind (10.244.0.0/16).
POD_CIDR = "10.213.0.0/16"
SERVICE_CIDR = "10.214.0.0/16"
# The bridge's address. API server, kubelet and CoreDNS listen on it, so pods and this machine reach them, no one else.
GATEWAY = "10.213.0.1"
# The same for IPv6, where the machine has it. Pods and Services then have addresses of both families.
POD_CIDR6 = "fd00:10:213::/64"
SERVICE_CIDR6 = "fd00:10:214::/112"
GATEWAY6 = "fd00:10:213::1"
PAUSE_IMAGE = "docker.io/queueworker/pause:1"
CONTEXT = "queueworker-node"


@dataclass(frozen=True, slots=True)
class Layout:
    """The node's folder. It has a fixed place, so that `node down` finds a node that an earlier process started.

    It is not below /tmp or /run, which may be in memory: containerd keeps its images here.
    """

    folder: Path = Path("/var/lib/queueworker-node")

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def pids(self) -> Path:
        return self.folder / "pids"

    @property
    def certificates(self) -> Path:
        return self.folder / "certs"

    @property
    def ca_file(self) -> Path:
        """The API server's self-signed certificate."""
        return self.certificates / "apiserver.crt"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens.csv"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, which all of the control plane uses as well."""
        return self.folder / "kubeconfig"

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.folder / "containerd.sock"

    @property
    def network(self) -> Path:
        """The CNI configuration of its pods."""
        return self.folder / "cni" / "net.d" / "10-bridge.conflist"

    @property
    def dual_stack(self) -> bool:
        """True if the pods of the node that is up have IPv6 addresses too."""
        return POD_CIDR6 in self.network.read_text()

    @property
    def traces(self) -> Path:
        """The file with the state of the machine before the node."""
        return self.folder / "before.json"
