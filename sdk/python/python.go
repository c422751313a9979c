// Package python has the SDK for Python as files, for `stagecoach plugin new --lang
// python` to put beside a new plugin. It is no way to write a plugin in Go.
package python

import "embed"

// Files are the package, without its tests: the folder "stagecoach" and what is in it.
//
//go:embed stagecoach/*.py stagecoach/py.typed stagecoach/mime/*.py stagecoach/v1/*.py stagecoach/v1/*.pyi
var Files embed.FS
