# For who has a mail server already and wants a filter in front of it: takes the
# domain's mail from the world, filters it, and hands it to the server inside by
# LMTP (or by SMTP: see the second deliver block). It keeps nothing but the queue,
# which holds the mail while the server inside is down.

hostname = "edge.ryan.example"
data_dir = "/var/lib/stagecoach"

tls "default" {
  cert = "/etc/stagecoach/tls/fullchain.pem"
  key  = "/etc/stagecoach/tls/privkey.pem"
}

# Programs that do not wait for the banner are sent away.
filter "tarpit" "strangers" {}

filter "authverify" "inbound" {}

filter "greylist" "calm" {}

filter "attachments" "programs" {}

filter "headers" "house" {
  require = ["From", "Date"]
  remove  = ["X-Internal-Note"]
}

filter "rules" "policy" {
  rule "forged" {
    when   = tags.dmarc.disposition == "reject"
    reject = "550 5.7.1 The domain of the sender asks to refuse this (DMARC)"
  }
  rule "doubtful" {
    when = tags.dmarc.disposition == "quarantine"
    hold = "the domain of the sender asks to doubt this (DMARC)"
  }
}

receive "smtp" "mx" {
  listen = [":25"]
  filters = [
    filter.tarpit.strangers, filter.greylist.calm, filter.authverify.inbound,
    filter.attachments.programs, filter.rules.policy, filter.headers.house,
  ]

  # The domains of the server inside; nothing else is taken.
  relay_domains = ["ryan.example", ".ryan.example"]
  max_size      = "50MB"
}

queue {
  retry  = ["1m", "5m", "15m", "1h"]
  expire = "5d"
}

# Held until somebody looks: `stagecoach queue list --state held`.
route "huge" {
  when = message.size > 45000000
  hold = "larger than the server inside takes"
}

route "lists" {
  when    = startswith(recipient.local, "list-")
  deliver = deliver.smtp.lists
}

route "inside" {
  deliver = deliver.lmtp.inside
}

deliver "lmtp" "inside" {
  hosts = ["192.0.2.10:24"]
}

deliver "smtp" "lists" {
  hosts = ["192.0.2.11:25"]
  tls   = "opportunistic"
}

test "the domain's mail goes inside" {
  from = "tom@hanks.example"
  to   = "meg@ryan.example"

  expect {
    route   = "inside"
    deliver = deliver.lmtp.inside
  }
}

test "the lists have a server of their own" {
  from = "tom@hanks.example"
  to   = "list-sleepless@ryan.example"

  expect {
    route = "lists"
  }
}
