package file

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Argon2id's price, as the OWASP cheat sheet has it for 19 MiB.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16
	scramIters   = 4096 // RFC 7677 section 4
)

// argonMaxMemory bounds what a hash in the file may ask for: 1 GiB.
const argonMaxMemory = 1 << 20

var b64 = base64.RawStdEncoding

// Hash makes an argon2id hash in PHC form.
func Hash(password string) (string, error) {
	salt := make([]byte, argonSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	sum := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, argonMemory, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(sum)), nil
}

func knownHash(h string) bool {
	if strings.HasPrefix(h, "$argon2id$") {
		_, err := parseArgon(h)
		return err == nil
	}
	_, err := bcrypt.Cost([]byte(h))
	return err == nil
}

// matches checks a password against an argon2id or bcrypt hash.
func matches(hash, password string) bool {
	if !strings.HasPrefix(hash, "$argon2id$") {
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
	}
	a, err := parseArgon(hash)
	if err != nil {
		return false
	}
	sum := argon2.IDKey([]byte(password), a.salt, a.time, a.memory, a.threads, uint32(len(a.sum)))
	return subtle.ConstantTimeCompare(sum, a.sum) == 1
}

type argonHash struct {
	memory, time uint32
	threads      uint8
	salt, sum    []byte
}

func parseArgon(h string) (a argonHash, err error) {
	parts := strings.Split(h, "$")
	if len(parts) != 6 || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return a, errors.New("not an argon2id hash of version 19")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &a.memory, &a.time, &a.threads); err != nil {
		return a, err
	}
	if a.memory > argonMaxMemory || a.time == 0 || a.time > 100 || a.threads == 0 {
		return a, errors.New("unreasonable argon2id parameters")
	}
	if a.salt, err = b64.DecodeString(parts[4]); err != nil {
		return a, err
	}
	if a.sum, err = b64.DecodeString(parts[5]); err != nil {
		return a, err
	}
	if len(a.sum) < 16 {
		return a, errors.New("argon2id hash too short")
	}
	return a, nil
}

// Verifier makes a SCRAM-SHA-256 verifier (RFC 5803's fields, as PostgreSQL
// writes them): SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY.
func Verifier(username, password string) (string, error) {
	client, err := scram.SHA256.NewClient(username, password, "")
	if err != nil {
		return "", err
	}
	salt := make([]byte, argonSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	c, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: scramIters})
	if err != nil {
		return "", err
	}
	std := base64.StdEncoding
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", c.Iters,
		std.EncodeToString(salt), std.EncodeToString(c.StoredKey), std.EncodeToString(c.ServerKey)), nil
}

type verifier struct {
	iterations              int
	salt, stored, serverKey []byte
}

func parseVerifier(s string) (v verifier, err error) {
	bad := errors.New("not SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY")
	parts := strings.Split(s, "$")
	if len(parts) != 3 || parts[0] != "SCRAM-SHA-256" {
		return v, bad
	}
	iters, salt, ok1 := strings.Cut(parts[1], ":")
	stored, server, ok2 := strings.Cut(parts[2], ":")
	if !ok1 || !ok2 {
		return v, bad
	}
	if v.iterations, err = strconv.Atoi(iters); err != nil || v.iterations < 1 {
		return v, bad
	}
	for _, f := range []struct {
		to   *[]byte
		from string
	}{{&v.salt, salt}, {&v.stored, stored}, {&v.serverKey, server}} {
		if *f.to, err = base64.StdEncoding.DecodeString(f.from); err != nil {
			return v, bad
		}
	}
	return v, nil
}
