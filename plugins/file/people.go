package file

import (
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/stagecoach-mta/stagecoach/sdk/address"
	"github.com/stagecoach-mta/stagecoach/sdk/schema"
)

// people is the file, checked and indexed. It is never changed: a new file
// makes a new one.
type people struct {
	domains map[string]*domain
	users   map[string]*user
	aliases map[string][]string
}

type domain struct{ catchAll string }

type user struct {
	account   string
	password  string
	scram     string
	addresses []string
	quota     int64
	disabled  bool
}

// The file's blocks, as written.
type document struct {
	Domains []domainBlock `hcl:"domain,block"`
	Users   []userBlock   `hcl:"user,block"`
	Aliases []aliasBlock  `hcl:"alias,block"`
}

type domainBlock struct {
	Name     string `hcl:"name,label"`
	CatchAll string `hcl:"catch_all,optional"`
}

type userBlock struct {
	Address   string    `hcl:"address,label"`
	Password  string    `hcl:"password,optional"`
	SCRAM     string    `hcl:"scram_sha_256,optional"`
	Addresses []string  `hcl:"addresses,optional"`
	Quota     string    `hcl:"quota,optional"`
	Disabled  bool      `hcl:"disabled,optional"`
	Range     hcl.Range `hcl:",def_range"`
}

type aliasBlock struct {
	Address string    `hcl:"address,label"`
	To      []string  `hcl:"to"`
	Range   hcl.Range `hcl:",def_range"`
}

// load reads the file; its errors name the line.
func load(path string) (*people, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, src)
}

func parse(path string, src []byte) (*people, error) {
	f, diags := hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	var doc document
	if diags := gohcl.DecodeBody(f.Body, nil, &doc); diags.HasErrors() {
		return nil, diags
	}
	p := &people{domains: map[string]*domain{}, users: map[string]*user{}, aliases: map[string][]string{}}
	for _, d := range doc.Domains {
		p.domains[strings.ToLower(d.Name)] = &domain{catchAll: d.CatchAll}
	}
	for _, u := range doc.Users {
		if err := p.addUser(u); err != nil {
			return nil, fmt.Errorf("%s: %w", u.Range, err)
		}
	}
	for _, a := range doc.Aliases {
		if err := p.addAlias(a); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Range, err)
		}
	}
	for name, d := range p.domains {
		if d.catchAll == "" {
			continue
		}
		if _, err := key(d.catchAll); err != nil {
			return nil, fmt.Errorf("%s: catch_all of domain %q: %w", path, name, err)
		}
	}
	return p, nil
}

func (p *people) addUser(u userBlock) error {
	k, err := key(u.Address)
	if err != nil {
		return err
	}
	if p.users[k] != nil {
		return fmt.Errorf("user %q is there twice", u.Address)
	}
	if p.aliases[k] != nil {
		return fmt.Errorf("the address %q is there twice: it is one of another user's addresses", u.Address)
	}
	if u.Password != "" && !knownHash(u.Password) {
		return fmt.Errorf("the password of %q is no argon2id or bcrypt hash: make one with `stagecoach user hash`", u.Address)
	}
	if u.SCRAM != "" {
		if _, err := parseVerifier(u.SCRAM); err != nil {
			return fmt.Errorf("scram_sha_256 of %q: %w", u.Address, err)
		}
	}
	x := &user{account: k, password: u.Password, scram: u.SCRAM, disabled: u.Disabled}
	if u.Quota != "" {
		size, err := schema.ParseSize(u.Quota)
		if err != nil {
			return fmt.Errorf("quota of %q: %w", u.Address, err)
		}
		x.quota = int64(size)
	}
	for _, a := range u.Addresses {
		ak, err := key(a)
		if err != nil {
			return err
		}
		if p.users[ak] != nil || p.aliases[ak] != nil {
			return fmt.Errorf("the address %q is there twice", a)
		}
		p.aliases[ak] = []string{k}
		x.addresses = append(x.addresses, ak)
		p.own(ak)
	}
	p.users[k] = x
	p.own(k)
	return nil
}

func (p *people) addAlias(a aliasBlock) error {
	k, err := key(a.Address)
	if err != nil {
		return err
	}
	if p.users[k] != nil || p.aliases[k] != nil {
		return fmt.Errorf("the address %q is there twice", a.Address)
	}
	if len(a.To) == 0 {
		return fmt.Errorf("the alias %q leads nowhere: give it at least one address in `to`", a.Address)
	}
	for _, to := range a.To {
		if _, err := key(to); err != nil {
			return err
		}
	}
	p.aliases[k] = a.To
	p.own(k)
	return nil
}

// own makes an address's domain one of ours.
func (p *people) own(addr string) {
	d := addr[strings.LastIndexByte(addr, '@')+1:]
	if p.domains[d] == nil {
		p.domains[d] = &domain{}
	}
}

// key is how addresses are compared: the local-part without case too, as every
// mailbox here is the same person whatever the case (RFC 5321 section 2.4 leaves
// that to us, who own the domain).
func key(addr string) (string, error) {
	a, err := address.Parse(addr, true)
	if err != nil {
		return "", fmt.Errorf("%q is no address: %w", addr, err)
	}
	return strings.ToLower(a.String()), nil
}
