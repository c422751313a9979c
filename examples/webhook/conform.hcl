# A server must be there and answer 2xx, see README.md.
url      = "http://127.0.0.1:8181/mail"
max_wait = "300s"
