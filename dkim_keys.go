package main

import (
	"context"
	"strings"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/plugins/mailauth/keyring"
	"github.com/stagecoach-mta/stagecoach/sdk/dns"
)

// signingKeys lets the command line make and check the keys of dkimsign.
type signingKeys struct{}

func shown(k keyring.Key, signs bool) (command.SigningKey, error) {
	out := command.SigningKey{Domain: k.Domain, Selector: k.Selector, Type: k.Type(), Signs: signs, Path: k.Path, Name: k.Name()}
	var err error
	if out.Record, err = k.Record(); err != nil {
		return out, err
	}
	out.Zone, err = k.Zone()
	return out, err
}

func (signingKeys) Make(dir, domain, selector, kind string, bits int) (command.SigningKey, error) {
	k, err := keyring.Make(dir, domain, selector, kind, bits)
	if err != nil {
		return command.SigningKey{}, err
	}
	return shown(k, !strings.HasSuffix(k.Path, keyring.Next))
}

func (signingKeys) List(dir, domain string) ([]command.SigningKey, error) {
	if domain != "" {
		var err error
		if domain, err = keyring.Domain(domain); err != nil {
			return nil, err
		}
	}
	all, err := keyring.All(dir, domain)
	if err != nil {
		return nil, err
	}
	waiting, err := keyring.Waiting(dir, domain)
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Open(dir, func(error) {})
	if err != nil {
		return nil, err
	}
	signs := map[string]bool{}
	var out []command.SigningKey
	for _, k := range append(all, waiting...) {
		for _, used := range ring.Of(k.Domain) {
			signs[used.Path] = true
		}
		one, err := shown(k, signs[k.Path])
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func (signingKeys) Published(ctx context.Context, k command.SigningKey, resolvers []string) error {
	client, err := dns.New(dns.Config{Servers: resolvers})
	if err != nil {
		return err
	}
	key, err := keyring.Read(k.Path, k.Domain, k.Selector)
	if err != nil {
		return err
	}
	return key.Published(ctx, client)
}
