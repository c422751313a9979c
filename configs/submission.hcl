# For who only sends: users and programs log in, mail goes out by MX, and copies
# of it go to an archive. Nothing is received from the world and nothing is kept.

hostname = "smtp.hanks.example"
data_dir = "/var/lib/stagecoach"

tls "default" {
  cert = "/etc/stagecoach/tls/fullchain.pem"
  key  = "/etc/stagecoach/tls/privkey.pem"
}

# Made with `stagecoach user add -f people.hcl tom@hanks.example`.
directory "file" "people" {
  path = "people.hcl"
}

filter "headers" "private" {
  remove = ["X-Originating-IP", "X-Internal-Note"]
}

receive "smtp" "submission" {
  listen         = [":587", ":465"]
  auth           = directory.file.people
  filters        = [filter.headers.private]
  max_recipients = 100

  # Mail programs may have a mail sent later: it waits in the queue for at most this
  # long (FUTURERELEASE). Who logs in may also say how urgent it is (MT-PRIORITY) and
  # by when it must be there (DELIVERBY).
  future_release = "30d"
}

queue {
  retry        = ["2m", "10m", "30m", "1h", "3h"]
  expire       = "3d"
  delay_notice = "1h"
}

# Copies beside the delivery; the copies themselves are not copied again.
route "archive" {
  when = sender.domain == "hanks.example" && recipient.address != "archive@reed.example"
  copy = ["archive@reed.example"]
}

route "out" {
  deliver = deliver.smtp.internet
}

deliver "smtp" "internet" {
  tls = "opportunistic"
}

test "mail goes out, with a copy" {
  from = "tom@hanks.example"
  to   = "meg@reed.example"
  user = "tom@hanks.example"

  expect {
    route = "out"
    copy  = ["archive@reed.example"]
  }
}
