package pipeline

import (
	"context"
	"fmt"

	"github.com/stagecoach-mta/stagecoach/core/config"
)

// ReloadPlugin gives one instance a new process with what cfg says of its block,
// and leaves all else as it is: calls go on, an error changes nothing.
func (p *Pipeline) ReloadPlugin(ctx context.Context, cfg *config.Config, ref string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	in, old := cfg.Instance(ref), p.cfg.Instance(ref)
	const all = "`stagecoach reload` reads the whole configuration"
	switch {
	case in == nil && old == nil:
		return fmt.Errorf("no plugin instance is called %q; `stagecoach plugin list` shows their names", ref)
	case in == nil:
		return fmt.Errorf("%s is no longer in the configuration: %s", ref, all)
	case old == nil:
		return fmt.Errorf("%s is new in the configuration: %s", ref, all)
	case in.Timeout != old.Timeout || in.OnFailure != old.OnFailure:
		// These are the pipeline's: who asks the plugin has them.
		return fmt.Errorf("timeout or on_failure of %s have changed, which are not the plugin's: %s", ref, all)
	case in.Describe.GetNeeds().GetDataDir() != old.Describe.GetNeeds().GetDataDir():
		return fmt.Errorf("the program of %s keeps data where it did not before, or no longer: %s", ref, all)
	case cfg.DataDir != p.cfg.DataDir:
		return errDataDir
	case in.TLS != nil && p.certs[in.TLS.Ref] == nil:
		return fmt.Errorf("%s of %s is new in the configuration: %s", in.TLS.Ref, ref, all)
	}
	s, err := p.spec(cfg, in, p.certs)
	if err != nil {
		return err
	}
	return p.host.Reload(ctx, s)
}
