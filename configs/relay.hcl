# For who has machines that send mail and one server that gets it out: a relay
# for named networks. Mail for the partner goes through a smarthost with a login,
# all other by MX. It keeps no mailboxes and takes no mail from strangers.

hostname = "relay.hanks.example"
data_dir = "/var/lib/stagecoach"

tls "default" {
  cert = "/etc/stagecoach/tls/fullchain.pem"
  key  = "/etc/stagecoach/tls/privkey.pem"
}

receive "smtp" "inside" {
  listen = [":25"]

  # Who may send to any address: your own networks, never the world.
  relay_from = ["127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]

  # Old devices end lines with LF alone; here it is read as CRLF.
  tolerate_bare_lf = ["192.0.2.0/24"]
}

queue {
  retry      = ["5m", "15m", "30m", "1h", "3h"]
  expire     = "5d"
  workers    = 100
  per_domain = 20

  # Each sender may have this many mails sent in an hour; the newsletter has a
  # limit of its own, and never takes more than ten places.
  source "*" {
    rate = "1000/1h"
  }
  source "news@hanks.example" {
    rate       = "50000/1h"
    deliveries = 10
  }
}

route "partner" {
  when    = recipient.domain == "ryan.example" || endswith(recipient.domain, ".ryan.example")
  deliver = deliver.smtp.partner
}

route "internet" {
  deliver = deliver.smtp.internet
}

deliver "smtp" "partner" {
  hosts    = ["smtp.ryan.example:587"]
  tls      = "verify"
  username = "hanks"
  password = env("PARTNER_PASSWORD")
}

deliver "smtp" "internet" {
  # A server that takes no 8-bit content gets it encoded. That breaks a DKIM
  # signature over the body; who would rather have such mail returned (5.6.3)
  # writes false.
  encode_8bit = true

  # Who asked for less than per_domain: connections are those at once.
  destination "reed.example" {
    connections = 5
    rate        = "100/1m"
  }
}

test "the partner's mail takes the smarthost" {
  from      = "tom@hanks.example"
  to        = "meg@ryan.example"
  client_ip = "192.0.2.7"

  expect {
    route   = "partner"
    deliver = deliver.smtp.partner
  }
}

test "all other goes by MX" {
  from      = "tom@hanks.example"
  to        = "annie@reed.example"
  client_ip = "192.0.2.7"

  expect {
    route = "internet"
  }
}
