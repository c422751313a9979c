hostname = "mx.ryan.example"
data_dir = "/var/lib/stagecoach"

tls "default" {
  cert = "mx.pem"
  key  = "mx.key"
}

directory "file" "people" {
  path = "people.hcl"
}
storage "local" "mail" {}

filter "authverify" "inbound" {}
filter "greylist" "calm" {
  delay = "2m"
}
plugin "attachments" {
  path   = "attachments"
  sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
}
filter "attachments" "no_exe" {
  forbid     = [".exe"]
  on_failure = "accept"
  timeout    = "5s"
}
filter "dkimsign" "out" {}

receive "smtp" "mx" {
  listen  = [":25"]
  filters = [filter.authverify.inbound, filter.greylist.calm, filter.attachments.no_exe]
}
receive "smtp" "submission" {
  listen = [":587", ":465"]
  auth   = directory.file.people
}

queue {
  retry  = ["5m", "15m", "1h", "3h"]
  expire = "5d"
}

route "quarantine" {
  when = tags.dmarc == "fail" && tags.dmarc_policy != "none"
  hold = "DMARC"
}
route "here" {
  when    = has(directory.file.people, recipient)
  deliver = deliver.storage.mail
}
route "elsewhere" {
  deliver = deliver.smtp.internet
}

deliver "storage" "mail" {
  storage = storage.local.mail
}
deliver "smtp" "internet" {
  filters = [filter.dkimsign.out]
}

access "imap" "imap" {
  listen  = [":993"]
  storage = storage.local.mail
  auth    = directory.file.people
}
access "pop3" "pop3" {
  listen  = ["tcp://:995"]
  storage = storage.local.mail
  auth    = directory.file.people
}

test "Meg's mail lands in her inbox" {
  from = "tom@hanks.example"
  to   = "meg@ryan.example"
  expect {
    route   = "here"
    deliver = deliver.storage.mail
  }
}
