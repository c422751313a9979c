package scaffold

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// module is a module path in its usual form.
var module = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*(/[A-Za-z0-9._~-]+)*$`)

var golang = language{
	program: func(o *Options) string { return o.Name },
	sdk:     goModule,
	develop: `
` + "`go test`" + ` asks the plugin without a process and then, built, everything that Stagecoach relies on; ` + "`go test -short`" + ` leaves the latter out. ` + "`stagecoach plugin dev .`" + ` runs it in a server of its own, again after each change.
`,
	build: func(o *Options) []string { return []string{"go build -o " + o.Name} },
	test:  func(*Options) []string { return []string{"go test"} },
}

// sdkModules are what the SDK's packages, their tests left out, are built from. A
// project that names them all needs no `go mod tidy`, and so no network.
var sdkModules = []string{
	"github.com/agext/levenshtein",
	"github.com/apparentlymart/go-textseg/v15",
	"github.com/hashicorp/hcl/v2",
	"github.com/mattn/go-colorable",
	"github.com/mattn/go-isatty",
	"github.com/mitchellh/go-wordwrap",
	"github.com/rs/zerolog",
	"github.com/zclconf/go-cty",
	"golang.org/x/net",
	"golang.org/x/sys",
	"golang.org/x/text",
	"google.golang.org/genproto/googleapis/rpc",
	"google.golang.org/grpc",
	"google.golang.org/protobuf",
}

// imported are modules that a kind's own files import, beside the SDK.
var imported = map[string][]string{
	"directory": {"github.com/rs/zerolog"},
	"storage":   {"golang.org/x/text"},
}

// goModule writes go.mod. From a checkout, the versions and checksums are the
// checkout's own: what built Stagecoach builds the plugin, without a download.
func goModule(o *Options, w *writer) (note string, err error) {
	if o.SDK == "" {
		text := fmt.Sprintf("module %s\n\ngo %s\n\nrequire %s %s\n", o.Module, goVersion, modulePath, o.Version)
		return fmt.Sprintf("It requires %s %s. Let Go find the rest, once: go mod tidy", modulePath, o.Version), w.write("go.mod", text, 0o644)
	}
	mod, err := os.ReadFile(filepath.Join(o.SDK, "go.mod"))
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(o.SDK, "go.sum"))
	if err != nil {
		return "", err
	}
	version, versions := readModule(string(mod))
	direct, indirect := modulePath+" v0.0.0\n", ""
	for _, m := range sdkModules {
		switch v := versions[m]; {
		case v == "":
			return "", fmt.Errorf("%s does not name %s: the checkout and this binary do not belong together", filepath.Join(o.SDK, "go.mod"), m)
		case slices.Contains(imported[o.Kind], m):
			direct += "\t" + m + " " + v + "\n"
		default:
			indirect += "\t" + m + " " + v + " // indirect\n"
		}
	}
	text := fmt.Sprintf("module %s\n\ngo %s\n\nrequire (\n\t%s)\n\nrequire (\n%s)\n\n// A checkout of Stagecoach.\nreplace %[5]s => %s\n",
		o.Module, version, direct, indirect, modulePath, quoted(o.SDK))
	if err := w.write("go.mod", text, 0o644); err != nil {
		return "", err
	}
	// Of the checksums only those of what is named above.
	var lines []string
	for line := range strings.Lines(string(sum)) {
		if name, _, _ := strings.Cut(line, " "); versions[name] != "" {
			lines = append(lines, line)
		}
	}
	return "It builds from the checkout " + o.SDK + ", with the versions that built Stagecoach: nothing is downloaded.", w.write("go.sum", strings.Join(lines, ""), 0o644)
}

// goVersion of a project that is not built from a checkout.
const goVersion = "1.26.0"

// readModule reads the go directive and the required versions of a go.mod.
func readModule(text string) (version string, versions map[string]string) {
	versions = map[string]string{}
	for line := range strings.Lines(text) {
		words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		switch {
		case len(words) == 2 && words[0] == "go":
			version = words[1]
		case len(words) >= 2 && strings.HasPrefix(words[1], "v"):
			versions[words[0]] = words[1]
		}
	}
	return version, versions
}

// quoted is a path as go.mod has it.
func quoted(path string) string {
	if strings.ContainsAny(path, " \t\"'`()") {
		return fmt.Sprintf("%q", path)
	}
	return path
}
