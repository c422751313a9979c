package config

import (
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// Sandbox is what a plugin's process may do beyond what every instance may: run
// its program, call the core and those that its block refers to, read the
// messages' files and the paths that its block names, and write to its data
// directory.
type Sandbox struct {
	// User to run as; empty: the core's own.
	User     string
	UID, GID int
	Network  bool
	// Programs: it may run the system's programs.
	Programs bool
	// Read and Write are absolute paths, with all below them.
	Read, Write []string
	Memory      int64 // octets; 0: the core's default
	Files       int   // open at once; 0: as the core
	Processes   int   // and threads; 0: no limit
}

// sandboxBlock is a sandbox block as written; nil: not said.
type sandboxBlock struct {
	at                     hcl.Range
	off, network, programs *bool
	user                   *account
	read, write            *[]string
	memory                 *int64
	files, processes       *int
}

type account struct {
	name     string
	uid, gid int
}

const sandboxBlockName = "sandbox"

// sandboxBlock reads the block's sandbox; nil if it has none.
func (l *loader) sandboxBlock(r *reader) *sandboxBlock {
	b := r.block(sandboxBlockName)
	if b == nil {
		return nil
	}
	s, in := &sandboxBlock{at: header(b)}, l.reader(b)
	in.what = "sandbox"
	flag := func(name string) *bool {
		var v bool
		if in.boolean(name, &v) {
			return &v
		}
		return nil
	}
	number := func(name string, low, high int) *int {
		if !in.set(name) {
			in.names = append(in.names, name)
			return nil
		}
		v := 0
		in.integer(name, &v, low, high)
		return &v
	}
	s.off, s.network, s.programs = flag("off"), flag("network"), flag("programs")
	var a account
	if at, ok := in.str("user", &a.name); ok {
		if err := a.lookUp(); err != nil {
			l.err(at, fmt.Sprintf("There is no user %q on this machine", a.name), "Add it (useradd --system …), or name another one.")
		} else {
			s.user = &a
		}
	}
	s.read, s.write = l.sandboxPaths(in, "read"), l.sandboxPaths(in, "write")
	var memory int64
	const least = 16 << 20
	if at, ok := parsed(in, "memory", &memory, parseSize, sizeRemedy); ok {
		s.memory = &memory
		if memory < least {
			l.err(at, "memory is too little for any program", `Write at least "16MB"; a small plugin in Go wants "64MB".`)
		}
	}
	s.files = number("files", 16, 1<<20)
	s.processes = number("processes", 4, 1<<20)
	in.done()
	if s.off != nil && *s.off && len(b.Body.Attributes) > 1 {
		l.warn(s.at, "off = true: the rest of this sandbox has no effect", "Remove one or the other.")
	}
	return s
}

func (a *account) lookUp() error {
	u, err := user.Lookup(a.name)
	if err != nil {
		if u, err = user.LookupId(a.name); err != nil {
			return err
		}
	}
	if a.uid, err = strconv.Atoi(u.Uid); err != nil {
		return err
	}
	a.gid, err = strconv.Atoi(u.Gid)
	return err
}

// sandboxPaths reads a list of paths: whole ones, and of what is there. A slip
// here would not be seen until the plugin fails far from this line.
func (l *loader) sandboxPaths(r *reader, name string) *[]string {
	if r.expr(name) == nil {
		return nil
	}
	paths := []string{}
	for _, i := range r.items(name) {
		if !filepath.IsAbs(i.text) {
			l.err(i.at, fmt.Sprintf("%q does not begin with a slash", i.text), "Write the whole path.")
			continue
		}
		if _, err := l.opts.FS.Stat(i.text); err != nil {
			l.err(i.at, fmt.Sprintf("The path %s cannot be granted: %s", i.text, reason(err)), "A sandbox grants what is there: make it first, or grant the folder above.")
			continue
		}
		paths = append(paths, filepath.Clean(i.text))
	}
	return &paths
}

// over is the block with what it leaves open taken from the one below.
func (s *sandboxBlock) over(below *sandboxBlock) *sandboxBlock {
	if s == nil || below == nil {
		if s == nil {
			return below
		}
		return s
	}
	out := *s
	inherit(&out.off, below.off)
	inherit(&out.network, below.network)
	inherit(&out.programs, below.programs)
	inherit(&out.user, below.user)
	inherit(&out.read, below.read)
	inherit(&out.write, below.write)
	inherit(&out.memory, below.memory)
	inherit(&out.files, below.files)
	inherit(&out.processes, below.processes)
	return &out
}

func inherit[T any](into **T, v *T) {
	if *into == nil {
		*into = v
	}
}

// sandbox decides what the instance runs in: a bundled plugin in one with what
// it says that it needs, an external one in one where a block says so. Field by
// field, the instance's block comes before the plugin's, and that before the
// plugin's own needs.
func (l *loader) sandbox(i *Instance, own *sandboxBlock) *Sandbox {
	needs := i.Describe.GetNeeds()
	var block *sandboxBlock
	if i.Binary != nil {
		block = i.Binary.sandbox
	}
	block = own.over(block)
	if block == nil {
		if i.Binary != nil {
			return nil
		}
		block = &sandboxBlock{}
	}
	if block.off != nil && *block.off {
		return nil
	}
	s := &Sandbox{}
	if i.Binary == nil {
		s.Network, s.Programs = needs.GetNetwork(), needs.GetPrograms()
		s.Read, s.Write = absolute(needs.GetReadPaths()), absolute(needs.GetWritePaths())
	}
	if block.user != nil {
		s.User, s.UID, s.GID = block.user.name, block.user.uid, block.user.gid
	}
	assign(&s.Network, block.network)
	assign(&s.Programs, block.programs)
	assign(&s.Read, block.read)
	assign(&s.Write, block.write)
	assign(&s.Memory, block.memory)
	assign(&s.Files, block.files)
	assign(&s.Processes, block.processes)
	// The paths that its block names are its own, whatever the sandbox's lists say.
	s.Read = append(slices.Clone(s.Read), l.namedPaths(i, i.Describe.GetSchema().GetBlock(), i.Config)...)
	if i.Binary == nil {
		for _, p := range needs.GetWritePaths() {
			s.Write = append(slices.Clone(s.Write), i.attributePath(p)...)
		}
	}
	if i.Binary != nil {
		l.compareNeeds(i, s, block.at)
	}
	return s
}

func assign[T any](into, v *T) {
	if v != nil {
		*into = *v
	}
}

func absolute(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return !filepath.IsAbs(p) })
}

// attributePath is the path that "{name}" stands for, if the attribute is set.
func (i *Instance) attributePath(p string) []string {
	name, opened := strings.CutPrefix(p, "{")
	name, closed := strings.CutSuffix(name, "}")
	if !opened || !closed || i.Config.IsNull() || !i.Config.Type().HasAttribute(name) {
		return nil
	}
	v := i.Config.GetAttr(name)
	if v.IsNull() || v.Type() != cty.String || !filepath.IsAbs(v.AsString()) {
		return nil
	}
	return []string{v.AsString()}
}

// namedPaths are the values of attributes of semantic "path". For a file it is
// the folder: programs replace a file by another of its name, and the sandbox's
// rule is for the one that was there.
func (l *loader) namedPaths(i *Instance, b *v1.Schema_Block, v cty.Value) []string {
	if v.IsNull() || !v.IsWhollyKnown() {
		return nil
	}
	var paths []string
	for _, a := range b.GetAttributes() {
		if a.GetSemantic() != "path" {
			continue
		}
		_ = cty.Walk(v.GetAttr(a.GetName()), func(_ cty.Path, s cty.Value) (bool, error) {
			if s.IsNull() || s.Type() != cty.String || !filepath.IsAbs(s.AsString()) {
				return true, nil
			}
			p := s.AsString()
			if info, err := l.opts.FS.Stat(p); err == nil && !info.IsDir() {
				p = filepath.Dir(p)
			}
			paths = append(paths, p)
			return true, nil
		})
	}
	for _, n := range b.GetBlocks() {
		inner := v.GetAttr(n.GetName())
		if inner.IsNull() {
			continue
		}
		if inner.Type().IsObjectType() {
			paths = append(paths, l.namedPaths(i, n.GetBlock(), inner)...)
			continue
		}
		for _, one := range inner.AsValueSlice() {
			paths = append(paths, l.namedPaths(i, n.GetBlock(), one)...)
		}
	}
	return paths
}

// compareNeeds warns where an external plugin says that it needs more than its
// sandbox grants: it may well fail.
func (l *loader) compareNeeds(i *Instance, s *Sandbox, at hcl.Range) {
	needs := i.Describe.GetNeeds()
	lacks := func(what, remedy string) {
		l.warn(at, fmt.Sprintf("The plugin %s says that it needs %s, and this sandbox does not grant it", i.Plugin, what), remedy)
	}
	if needs.GetNetwork() && !s.Network {
		lacks("the network", "If it may: network = true")
	}
	if needs.GetPrograms() && !s.Programs {
		lacks("to run programs", "If it may: programs = true")
	}
	for _, p := range needs.GetReadPaths() {
		for _, p := range append(absolute([]string{p}), i.attributePath(p)...) {
			if !below(p, s.Read) && !below(p, s.Write) {
				lacks("to read "+p, fmt.Sprintf("If it may: read = [%q]", p))
			}
		}
	}
	for _, p := range needs.GetWritePaths() {
		for _, p := range append(absolute([]string{p}), i.attributePath(p)...) {
			if !below(p, s.Write) {
				lacks("to write to "+p, fmt.Sprintf("If it may: write = [%q]", p))
			}
		}
	}
}

func below(p string, granted []string) bool {
	return slices.ContainsFunc(granted, func(g string) bool {
		return p == g || strings.HasPrefix(p, strings.TrimSuffix(g, "/")+"/")
	})
}

// checkSandboxUsers finds access plugins that run as another user than their
// storage: each reads files that the other one wrote, uploads and large messages.
func (l *loader) checkSandboxUsers() {
	for _, i := range l.cfg.Instances {
		if i.Storage == nil {
			continue
		}
		uid, as := i.Sandbox.runsAs()
		other, them := i.Storage.Sandbox.runsAs()
		if uid == other {
			continue
		}
		at, user := i.Ref, i.Storage.Sandbox
		if other == 0 {
			at, user = i.Storage.Ref, i.Sandbox
		}
		l.err(i.Range, fmt.Sprintf("%s runs as %s and its storage %s as %s: they could not read each other's messages", i.Ref, as, i.Storage.Ref, them),
			fmt.Sprintf("Write in %s: sandbox { user = %q }", at, user.User))
	}
}

func (s *Sandbox) runsAs() (uid int, name string) {
	if s == nil || s.UID == 0 {
		return 0, "the core's user"
	}
	return s.UID, s.User
}

// MessagePaths are the paths, beside its data directory, where a storage keeps
// messages: those that its block grants or names, whatever the plugin wishes.
func (i *Instance) MessagePaths() []string {
	var paths []string
	if i.Sandbox != nil {
		paths = append(paths, i.Sandbox.Write...)
	}
	for _, p := range i.Describe.GetNeeds().GetWritePaths() {
		paths = append(paths, i.attributePath(p)...)
	}
	return paths
}

// noSandboxOfItsOwn keeps the block's name for the core.
func noSandboxOfItsOwn(d *v1.DescribeResponse) string {
	for _, n := range d.GetSchema().GetBlock().GetBlocks() {
		if n.GetName() == sandboxBlockName {
			return "it has a block \"sandbox\", which is the core's own"
		}
	}
	return ""
}
