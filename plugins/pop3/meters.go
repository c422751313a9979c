package pop3

import "github.com/stagecoach-mta/stagecoach/sdk"

// meters count what the server does.
type meters struct {
	connections, refused, logins, denied, sent, removed *sdk.Value
}

func newMeters(m *sdk.Metrics) meters {
	return meters{
		connections: m.Gauge("pop3_connections", "Connections at present."),
		refused:     m.Counter("pop3_connections_refused_total", "Connections refused because there were too many."),
		logins:      m.Counter("pop3_logins_total", "Logins, by outcome.", "outcome", "accepted"),
		denied:      m.Counter("pop3_logins_total", "Logins, by outcome.", "outcome", "denied"),
		sent:        m.Counter("pop3_messages_sent_total", "Messages sent whole with RETR."),
		removed:     m.Counter("pop3_messages_removed_total", "Messages removed at QUIT."),
	}
}
