//go:build tools

// Imports the command that devcluster builds, so that go.mod and go.sum pin its dependencies.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
