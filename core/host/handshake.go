package host

import "github.com/hashicorp/go-plugin"

var handshake = plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "STAGECOACH_PLUGIN", MagicCookieValue: "v1"}
