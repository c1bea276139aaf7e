"""The local control plane: a real kube-apiserver and etcd, and the binaries around them."""
