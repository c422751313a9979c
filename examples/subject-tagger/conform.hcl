inside   = ["ryan.example"]
external = "[external]"

rule "lottery" {
  pattern = "lottery"
  prefix  = "[advert]"
  score   = 3
  not_for = ["meg@ryan.example"]
}
