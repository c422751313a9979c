package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/host"
	"github.com/stagecoach-mta/stagecoach/sdk"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
)

// defaultConfig is read when -c is not given.
const defaultConfig = "/etc/stagecoach"

// source is the -c and --data-dir flags.
type source struct {
	paths   []string
	dataDir string
}

func (s *source) flags(c *cobra.Command) {
	c.Flags().StringArrayVarP(&s.paths, "config", "c", nil, "configuration: a file, or a folder of .hcl files (may be repeated; default "+defaultConfig+")")
	c.Flags().StringVar(&s.dataDir, "data-dir", "", "use this data directory instead of the configuration's")
}

// load reads the configuration; its mistakes go to standard error and end the
// command with ExitConfig. Warnings are printed and do not.
func (a *App) load(cmd *cobra.Command, s source) (*config.Config, error) {
	cfg, diags := a.parse(cmd.Context(), s)
	if len(diags) > 0 {
		if err := diags.WriteText(cmd.ErrOrStderr(), terminal(cmd.ErrOrStderr())); err != nil {
			return nil, err
		}
	}
	if diags.HasErrors() {
		return nil, &exit{ExitConfig, errPrinted}
	}
	return cfg, nil
}

func (a *App) parse(ctx context.Context, s source) (*config.Config, config.Diagnostics) {
	return config.Load(ctx, s.where(), a.options(s))
}

func (a *App) options(s source) config.Options {
	dir := s.dataDir
	if dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
	}
	return config.Options{Schemas: a.schemas, Bundled: a.bundledNames(), DataDir: dir}
}

// where the configuration lies.
func (s *source) where() []string {
	if len(s.paths) == 0 {
		return []string{defaultConfig}
	}
	return s.paths
}

// schemas describes bundled plugins in this process and external ones by
// starting them.
func (a *App) schemas(ctx context.Context, p config.Plugin) (*v1.DescribeResponse, error) {
	if p.Binary != nil {
		return describeBinary(ctx, p.Binary, a.Version)
	}
	for _, b := range a.Bundled {
		d, err := sdk.Describe(b)
		if err != nil {
			return nil, err
		}
		if d.GetName() == p.Name && (d.GetKind() == p.Kind || p.Kind == v1.Kind_KIND_UNSPECIFIED) {
			return d, nil
		}
	}
	return nil, fmt.Errorf("there is no plugin %q in this binary", p.Name)
}

func (a *App) bundledNames() map[v1.Kind][]string {
	out := map[v1.Kind][]string{}
	for _, b := range a.Bundled {
		if d, err := sdk.Describe(b); err == nil {
			out[d.GetKind()] = append(out[d.GetKind()], d.GetName())
		}
	}
	return out
}

func describeBinary(ctx context.Context, b *config.Binary, version string) (*v1.DescribeResponse, error) {
	dir, err := os.MkdirTemp("", "stagecoach-describe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	h, err := host.New(host.Options{RunDir: dir, Log: zerolog.Nop(), CoreVersion: version})
	if err != nil {
		return nil, err
	}
	defer h.Close(ctx)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return h.Describe(ctx, binarySpec(b))
}

func binarySpec(b *config.Binary) host.Spec {
	s := host.Spec{Instance: "plugin." + b.Name, Plugin: b.Name, Command: append([]string{b.Path}, b.Args...)}
	if b.SHA256 != nil {
		s.SHA256 = fmt.Sprintf("%x", b.SHA256)
	}
	for k, v := range b.Env {
		s.Env = append(s.Env, k+"="+v)
	}
	return s
}

func (a *App) validate() *cobra.Command {
	var (
		src    source
		asJSON bool
	)
	c := &cobra.Command{
		Use: "validate -c FILE", Short: "Check a configuration without running it", Args: cobra.NoArgs,
		Long: "Check a configuration: syntax, references, types, expressions, addresses, and every plugin's own\nattributes. Nothing is started but external plugins, which are asked for their schema.",
		RunE: doUntilSignal(func(cmd *cobra.Command, _ []string) error {
			cfg, diags := a.parse(cmd.Context(), src)
			if asJSON {
				if _, err := cmd.OutOrStdout().Write(diags.JSON()); err != nil {
					return err
				}
			} else if err := diags.WriteText(cmd.ErrOrStderr(), terminal(cmd.ErrOrStderr())); err != nil {
				return err
			}
			if diags.HasErrors() {
				return &exit{ExitConfig, errPrinted}
			}
			if !asJSON {
				fmt.Fprintf(cmd.OutOrStdout(), "The configuration is valid: %d listener(s), %d plugin(s), %d route(s).\n",
					len(cfg.Receives), len(cfg.Instances), len(cfg.Routes))
			}
			return nil
		}),
	}
	src.flags(c)
	jsonFlag(c, &asJSON)
	return c
}

func (a *App) format() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use: "fmt FILE…", Short: "Rewrite configuration files in the usual form", Args: cobra.MinimumNArgs(1),
		Long: `Rewrite .hcl files (or all of a folder) in the usual form: blanks and line ends change,
nothing else. Prints the names of the files that changed. A file that is no HCL is left
as it is, and what is wrong with it printed (exit 3).`,
		RunE: do(func(cmd *cobra.Command, args []string) error {
			files, err := hclFiles(args)
			if err != nil {
				return err
			}
			differ, broken := false, false
			for _, f := range files {
				src, err := os.ReadFile(f)
				if err != nil {
					return err
				}
				if diags := config.Syntax(f, src); diags.HasErrors() {
					broken = true
					if err := diags.WriteText(cmd.ErrOrStderr(), terminal(cmd.ErrOrStderr())); err != nil {
						return err
					}
					continue
				}
				out := config.Format(src)
				if bytes.Equal(src, out) {
					continue
				}
				differ = true
				fmt.Fprintln(cmd.OutOrStdout(), f)
				if check {
					continue
				}
				fi, err := os.Stat(f)
				if err != nil {
					return err
				}
				if err := os.WriteFile(f, out, fi.Mode().Perm()); err != nil {
					return err
				}
			}
			if broken {
				return &exit{ExitConfig, errPrinted}
			}
			if check && differ {
				return errors.New("these files are not in the usual form: run `stagecoach fmt` on them")
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing; exit 1 if a file would change")
	return c
}

func hclFiles(args []string) ([]string, error) {
	var out []string
	for _, a := range args {
		fi, err := os.Stat(a)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no file or folder %s", a)
		}
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			out = append(out, a)
			continue
		}
		in, err := filepath.Glob(filepath.Join(a, "*.hcl"))
		if err != nil {
			return nil, err
		}
		if len(in) == 0 {
			return nil, fmt.Errorf("the folder %s holds no .hcl file", a)
		}
		out = append(out, in...)
	}
	return out, nil
}
