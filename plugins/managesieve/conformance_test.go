package managesieve

import (
	"testing"

	"github.com/stagecoach-mta/stagecoach/sdk/conform"
	"github.com/stagecoach-mta/stagecoach/sdk/sdktest"
)

func TestConformance(t *testing.T) {
	sdktest.Conform(t, Plugin(), map[string]any{"scripts": t.TempDir()}, conform.Facts{})
}
