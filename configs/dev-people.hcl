# The people of dev.hcl. Both passwords are "sleepless", known to everybody:
# never serve this file to anybody but yourself.

domain "hanks.example" {}

domain "ryan.example" {}

user "tom@hanks.example" {
  password      = "$argon2id$v=19$m=19456,t=2,p=1$yUBP86ntG8xPSc8n+dUxLQ$a+zgk/34qEMjmgeeNjpYnXgyermdt4dwpte9/qQXLdw"
  scram_sha_256 = "SCRAM-SHA-256$4096:phgTnUV1HoZo35g1KoXu0A==$AZCKPP9YfHYsVHa7ryrOg0xMReqse4ujMs9Do/X/Ilw=:hdFrup2hde+CIWUVm+nlJM95OdrOoZ5OSUirSakHyR0="
}

user "meg@ryan.example" {
  password      = "$argon2id$v=19$m=19456,t=2,p=1$7W1hyj1Iq1mZ2IW+vgDg+w$1PtzsfGW6k4RzydfqY4bqExUGOgXiFSqH0Sr7pfZBe0"
  scram_sha_256 = "SCRAM-SHA-256$4096:OVKBVgqeoeq5QIC5e21m3g==$X4XZFA1MCwQAXJEhYpqn63blh5ZRHNkdzQiPGV5sC+w=:hmMPDE3G6P/1bfgNmyCiydU2Zg8vDGjaD2kEnbBuyOw="
}

alias "postmaster@hanks.example" {
  to = ["tom@hanks.example"]
}

alias "postmaster@ryan.example" {
  to = ["meg@ryan.example"]
}

alias "both@ryan.example" {
  to = ["tom@hanks.example", "meg@ryan.example"]
}
