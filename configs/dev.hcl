# For a first look on your own machine: `make run`, or
#
#   stagecoach serve -c configs/dev.hcl
#
# A complete server for hanks.example and ryan.example: mail comes in, is queued,
# routed and stored, and is read over IMAP and POP3. Everything listens on
# loopback only. Start a server of your own from mda.hcl, relay.hcl, edge.hcl or
# submission.hcl, not from this file: see `insecure_auth` below.

hostname = "mx.ryan.example"
data_dir = "${env("HOME")}/.stagecoach-dev"

welcome = <<-EOT
  Users: tom@hanks.example and meg@ryan.example, password "sleepless" for both.

  Send a mail:
    printf 'From: tom@hanks.example\nTo: meg@ryan.example\nSubject: You have got mail\n\nHello Meg\n' |
      curl --crlf -T - smtp://127.0.0.1:2587 --user tom@hanks.example:sleepless \
        --mail-from tom@hanks.example --mail-rcpt meg@ryan.example

  Read it:
    curl --user meg@ryan.example:sleepless 'imap://127.0.0.1:2143/INBOX;MAILINDEX=1'
EOT

log {
  format = "console"
}

# What Prometheus reads, and a /healthz for a monitor. Both have no login: keep
# them on loopback or an internal network.
metrics {
  listen = "127.0.0.1:9325"
}

# A certificate made at the first start and kept in the data directory: enough
# for STARTTLS on loopback, and nobody outside would trust it.
tls "default" {
  self_signed = true
}

# Who exists and who may log in. `stagecoach user add` writes such files.
directory "file" "people" {
  path = "dev-people.hcl"
}

# The embedded storage: needs nothing, keeps everything below data_dir.
storage "local" "mail" {}

receive "smtp" "mx" {
  listen = ["127.0.0.1:2525"]
}

receive "smtp" "submission" {
  listen = ["127.0.0.1:2587"]
  auth   = directory.file.people

  # Passwords without TLS: for this file only, where nothing leaves the machine.
  # On any address but loopback the configuration is refused.
  insecure_auth = true
}

queue {
  retry = ["1m", "5m", "15m", "1h"]
}

route "here" {
  when    = has(directory.file.people, recipient)
  deliver = deliver.storage.mail
}

# Everything else would go out by MX; without a network that mail waits.
route "elsewhere" {
  deliver = deliver.smtp.internet
}

deliver "storage" "mail" {
  storage          = storage.local.mail
  detail_to_folder = true
}

deliver "smtp" "internet" {}

access "imap" "imap" {
  listen        = ["127.0.0.1:2143"]
  storage       = storage.local.mail
  auth          = directory.file.people
  insecure_auth = true # as above: loopback only
}

access "pop3" "pop3" {
  listen        = ["127.0.0.1:2110"]
  storage       = storage.local.mail
  auth          = directory.file.people
  insecure_auth = true # as above: loopback only
}

test "Meg's mail lands in her mailbox" {
  from = "tom@hanks.example"
  to   = "meg@ryan.example"

  expect {
    route   = "here"
    deliver = deliver.storage.mail
  }
}

test "mail for others leaves" {
  from = "tom@hanks.example"
  to   = "annie@reed.example"
  user = "tom@hanks.example"

  expect {
    route = "elsewhere"
  }
}
