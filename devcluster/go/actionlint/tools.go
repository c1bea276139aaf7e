//go:build tools

// Imports the command that devcluster builds, so that go.mod and go.sum pin its dependencies.
package tools

import _ "github.com/rhysd/actionlint/cmd/actionlint"
