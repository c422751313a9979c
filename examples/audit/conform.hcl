refusals = false
