"""The configuration files of the node's programs, as text. They suit a machine with few rights: see the comments."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import yaml

from devcluster.node.layout import BRIDGE, CONTEXT, GATEWAY, GATEWAY6, NODE_NAME, PAUSE_IMAGE, POD_CIDR, POD_CIDR6

if TYPE_CHECKING:
    from pathlib import Path

    from devcluster.node.layout import Layout

AUDIT_POLICY = yaml.safe_dump(
    {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }
)


def both(ipv4: str, ipv6: str, *, dual_stack: bool) -> str:
    """The value of an option that takes one for each family."""
    return f"{ipv4},{ipv6}" if dual_stack else ipv4


def kubeconfig(url: str, token: str, authority: bytes) -> str:
    """The administrator's."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": "admin"}}],
    }
    return yaml.safe_dump(config)


def containerd(layout: Layout, plugins: Path) -> str:
    """`plugins` is the folder of the CNI plugins. Without CAP_SYS_RESOURCE the score of a process cannot be lowered."""
    return f"""\
version = 2
root = "{layout.folder}/containerd/root"
state = "{layout.folder}/containerd/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{layout.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{layout.folder}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{layout.folder}/cni/net.d"
"""


def network(layout: Layout, *, dual_stack: bool) -> str:
    """The CNI configuration: a bridge, addresses from `POD_CIDR` and `POD_CIDR6`, host ports."""
    ranges = [[{"subnet": POD_CIDR, "gateway": GATEWAY}]]
    routes = [{"dst": "0.0.0.0/0"}]
    if dual_stack:
        ranges.append([{"subnet": POD_CIDR6, "gateway": GATEWAY6}])
        routes.append({"dst": "::/0"})
    addresses = {
        "type": "host-local",
        "dataDir": f"{layout.folder}/cni/addresses",
        "ranges": ranges,
        "routes": routes,
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True}
    plugins = [bridge | {"ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "0.4.0", "name": CONTEXT, "plugins": plugins}, indent=2)


def kubelet(layout: Layout, port: int, health_port: int) -> str:
    """For cgroup v1 or v2 without systemd, without CAP_SYS_RESOURCE, with swap, on a disk that others fill as well.

    It authorises everyone, because an API server without a certificate of its own cannot authenticate to it: it
    listens on the bridge only.
    """
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": GATEWAY,
        "port": port,
        "readOnlyPort": 0,
        "healthzPort": health_port,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "failSwapOn": False,
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": [GATEWAY],
        "clusterDomain": "cluster.local",
        "podLogsDir": f"{layout.folder}/pods",
        "volumePluginDir": f"{layout.folder}/kubelet/volume-plugins",
        "registerNode": True,
        # Pods of tests come and go: their default (5 and 10 a second) delays their status.
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    }
    return yaml.safe_dump(config)


def kube_proxy(layout: Layout, metrics_port: int, health_port: int, *, dual_stack: bool) -> str:
    """Limits of conntrack are left as they are: its sysctls are read-only on some machines."""
    config: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig)},
        "hostnameOverride": NODE_NAME,
        "mode": "iptables",
        "clusterCIDR": both(POD_CIDR, POD_CIDR6, dual_stack=dual_stack),
        "oomScoreAdj": 0,
        "metricsBindAddress": f"127.0.0.1:{metrics_port}",
        "healthzBindAddress": f"127.0.0.1:{health_port}",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return yaml.safe_dump(config)


def corefile(layout: Layout) -> str:
    """Names of the cluster, and of nothing else: no test depends on this machine's resolver."""
    return f"""\
.:53 {{
  bind {GATEWAY}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {layout.kubeconfig}
    pods insecure
    ttl 5
  }}
  cache 5
}}
"""
