"""A real Kubernetes node on this machine: containerd, kubelet, kube-proxy, the control plane and CoreDNS."""
