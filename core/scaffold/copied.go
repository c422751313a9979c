package scaffold

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/stagecoach-mta/stagecoach/sdk/node"
	"github.com/stagecoach-mta/stagecoach/sdk/python"
)

// sdkFolder is where a project has the copy of its SDK.
const sdkFolder = "stagecoach"

var pythonic = language{
	program: func(*Options) string { return "main.py" },
	sdk: func(_ *Options, w *writer) (string, error) {
		const note = "The SDK is the folder stagecoach. It needs Debian's python3-grpcio and python3-protobuf, and openssl; main.py's first line names the Python that has them."
		return note, w.copy(python.Files, sdkFolder, "")
	},
	develop: `
The first command asks the plugin without a process, the second one its program everything that Stagecoach relies on. ` + "`stagecoach plugin dev .`" + ` runs it in a server of its own, again after each change.

Python is Debian's, with python3-grpcio and python3-protobuf; for another one, write it into the first line of main.py. The folder stagecoach is the SDK: its modules say what there is.
`,
	test: func(*Options) []string { return []string{"/usr/bin/python3 -m unittest"} },
}

var nodejs = language{
	program: func(*Options) string { return "main.js" },
	sdk:     nodePackage,
	develop: `
` + "`npm ci`" + ` fetches the packages of package-lock.json, once. ` + "`npm test`" + ` asks the plugin without a process; the last command asks its program everything that Stagecoach relies on. ` + "`stagecoach plugin dev .`" + ` runs it in a server of its own, again after each change.

It needs Node 20 or newer and the openssl program. The folder stagecoach is the SDK: its README says what there is.
`,
	build: func(*Options) []string { return []string{"npm ci"} },
	test:  func(*Options) []string { return []string{"npm test"} },
}

// nodePackage copies the SDK and writes package.json, and a lock file with the
// versions that the SDK was tested with.
func nodePackage(o *Options, w *writer) (note string, err error) {
	if err := w.copy(node.Files, ".", sdkFolder); err != nil {
		return "", err
	}
	var sdk struct{ Name, Version string }
	var lock struct {
		LockfileVersion int                        `json:"lockfileVersion"`
		Packages        map[string]json.RawMessage `json:"packages"`
	}
	for name, to := range map[string]any{"package.json": &sdk, "package-lock.json": &lock} {
		b, err := node.Files.ReadFile(name)
		if err != nil {
			return "", err
		}
		if err := json.Unmarshal(b, to); err != nil {
			return "", fmt.Errorf("the SDK's %s: %w", name, err)
		}
	}
	type object = map[string]any
	// npm knows names in lower case only.
	own := object{
		"name": npmName(o.Name), "version": "0.1.0", "engines": object{"node": ">=20"},
		"dependencies": object{sdk.Name: "file:" + sdkFolder},
	}
	root := object{}
	for k, v := range own {
		root[k] = v
	}
	own["private"], own["type"], own["main"] = true, "module", "main.js"
	own["scripts"] = object{"test": "node --test"}
	if err := w.json("package.json", own); err != nil {
		return "", err
	}
	packages := object{"": root}
	for at, p := range lock.Packages {
		if at != "" {
			packages[at] = p
		}
	}
	// As npm writes a package that is copied from a folder: what it needs is the SDK's
	// own root entry.
	var copied object
	if err := json.Unmarshal(lock.Packages[""], &copied); err != nil {
		return "", fmt.Errorf("the SDK's package-lock.json: %w", err)
	}
	delete(copied, "name")
	copied["resolved"] = "file:" + sdkFolder
	packages["node_modules/"+sdk.Name] = copied
	if err := w.json("package-lock.json", object{
		"name": own["name"], "version": own["version"], "lockfileVersion": lock.LockfileVersion, "requires": true, "packages": packages,
	}); err != nil {
		return "", err
	}
	return "The SDK is the folder stagecoach; npm ci fetches the packages that it needs, in the versions of package-lock.json, once.", nil
}

// npmName is a plugin's name as npm takes it.
func npmName(name string) string { return string(bytes.ToLower([]byte(name))) }

// copy puts the files below from into the project, below the folder to.
func (w *writer) copy(files embed.FS, from, to string) error {
	return fs.WalkDir(files, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		name = path.Join(to, name)
		if err := os.MkdirAll(filepath.Join(w.dir, path.Dir(name)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(w.dir, name), b, 0o644)
	})
}

func (w *writer) json(name string, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	return w.write(name, b.String(), 0o644)
}
