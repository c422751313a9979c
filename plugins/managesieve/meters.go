package managesieve

import "github.com/stagecoach-mta/stagecoach/sdk"

// meters count what the server does.
type meters struct{ connections, refused, logins, denied, stored *sdk.Value }

func newMeters(m *sdk.Metrics) meters {
	return meters{
		connections: m.Gauge("managesieve_connections", "Connections at present."),
		refused:     m.Counter("managesieve_connections_refused_total", "Connections refused because there were too many."),
		logins:      m.Counter("managesieve_logins_total", "Logins, by outcome.", "outcome", "accepted"),
		denied:      m.Counter("managesieve_logins_total", "Logins, by outcome.", "outcome", "denied"),
		stored:      m.Counter("managesieve_scripts_stored_total", "Scripts stored with PUTSCRIPT."),
	}
}
