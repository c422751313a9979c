package pipeline

import (
	"github.com/stagecoach-mta/stagecoach/core/config"
	"github.com/stagecoach-mta/stagecoach/core/host"
)

// Sandbox is the host's word for a block's sandbox.
func Sandbox(s *config.Sandbox) *host.Sandbox {
	if s == nil {
		return nil
	}
	return &host.Sandbox{
		User: s.User, UID: s.UID, GID: s.GID, Network: s.Network, Programs: s.Programs,
		Read: s.Read, Write: s.Write, Memory: s.Memory, Files: s.Files, Processes: s.Processes,
	}
}
