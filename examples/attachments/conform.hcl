forbid = [".exe"]
