# What the program checks itself: the core sees types only.
wrong = {
  inside = "external = \"[external]\""
  rule   = "rule \"broken\" { pattern = \"(\" }"
}
