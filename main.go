// Command stagecoach is a plugin-driven mail transfer agent. This file is the
// composition root: it names every part and holds no logic.
package main

import (
	"context"
	"os"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/plugins"
	"github.com/stagecoach-mta/stagecoach/plugins/file"
)

// version is set by the linker in a release.
var version = "0.1.0-dev"

func main() {
	command.CoarseTimers(os.Args[1:])
	os.Exit(app().Run(context.Background(), os.Args[1:]))
}

// app names the parts.
func app() *command.App {
	return &command.App{
		Version:     version,
		Bundled:     plugins.Bundled(),
		Users:       peopleFile{},
		SigningKeys: signingKeys{},
		UserScripts: userScripts{},
		Stdin:       os.Stdin,
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
	}
}

// peopleFile lets the command line edit the file directory's file.
type peopleFile struct{}

func (peopleFile) Add(path, address, password string) error {
	return file.AddUser(path, address, password)
}

func (peopleFile) SetPassword(path, address, password string) error {
	return file.SetPassword(path, address, password)
}

func (peopleFile) List(path string) ([]string, error) { return file.List(path) }
