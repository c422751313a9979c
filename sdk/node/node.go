// Package node has the SDK for JavaScript as files, for `stagecoach plugin new --lang
// node` to put beside a new plugin. It is no way to write a plugin in Go.
package node

import "embed"

// Files are the package, without its tests, and the lock file that says which
// versions of which other packages it was tested with.
//
//go:embed package.json package-lock.json README.md index.js testing.js lib/*.js lib/mime/*.js proto/*.proto
var Files embed.FS
