# For who keeps the mail of a domain: a final MDA with IMAP and POP3, and
# submission for its users. Replace ryan.example, the certificate and the people
# file by your own, then `stagecoach validate -c mda.hcl`.

hostname = "mx.ryan.example"
data_dir = "/var/lib/stagecoach"

tls "default" {
  cert = "/etc/stagecoach/tls/fullchain.pem"
  key  = "/etc/stagecoach/tls/privkey.pem"
}

directory "file" "people" {
  path = "people.hcl"
}

storage "local" "mail" {}

# A mail without these two fields is a mistake or spam.
filter "headers" "basic" {
  require = ["From", "Date"]
}

# From other servers, for the directory's domains only.
receive "smtp" "mx" {
  listen   = [":25"]
  filters  = [filter.headers.basic]
  max_size = "50MB"
}

# From the users' mail programs, with a login under TLS.
receive "smtp" "submission" {
  listen = [":587", ":465"]
  auth   = directory.file.people
}

queue {
  retry        = ["5m", "15m", "30m", "1h", "3h"]
  expire       = "5d"
  delay_notice = "4h"

  # What `stagecoach trace` can tell, also of mail that is gone.
  journal      = "7d"
  journal_size = "1GiB"
}

route "here" {
  when    = has(directory.file.people, recipient)
  deliver = deliver.storage.mail
}

route "elsewhere" {
  deliver = deliver.smtp.internet
}

deliver "storage" "mail" {
  storage          = storage.local.mail
  detail_to_folder = true # meg+lists@ryan.example goes to her folder "lists"
}

deliver "smtp" "internet" {}

access "imap" "imap" {
  listen  = [":993", ":143"]
  storage = storage.local.mail
  auth    = directory.file.people
}

access "pop3" "pop3" {
  listen  = [":995", ":110"]
  storage = storage.local.mail
  auth    = directory.file.people
}

test "a user's mail is kept here" {
  from = "tom@hanks.example"
  to   = "meg@ryan.example"

  expect {
    route = "here"
  }
}

test "a user's mail to others goes out" {
  from = "meg@ryan.example"
  to   = "annie@reed.example"
  user = "meg@ryan.example"

  expect {
    route   = "elsewhere"
    deliver = deliver.smtp.internet
  }
}
