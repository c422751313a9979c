# A whole configuration that the mistakes stand beside.
hostname = "mx.ryan.example"
data_dir = "/var/lib/stagecoach"

directory "file" "rest" {
  path = "people.hcl"
}
storage "local" "rest" {}

receive "smtp" "rest" {
  listen = ["127.0.0.1:2599"]
}
route "rest" {
  when    = has(directory.file.rest, recipient)
  deliver = deliver.storage.rest
}
deliver "storage" "rest" {
  storage = storage.local.rest
}
