# A path at which the server does not answer.
slow = "url = \"http://127.0.0.1:8181/never\"\nmax_wait = \"300s\""
