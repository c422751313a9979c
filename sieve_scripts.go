package main

import (
	"context"
	"os"

	"github.com/stagecoach-mta/stagecoach/core/command"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve"
	"github.com/stagecoach-mta/stagecoach/plugins/sieve/scripts"
)

// userScripts lets the command line edit and try users' Sieve scripts.
type userScripts struct{}

func store(at command.ScriptsAt) (scripts.Store, error) {
	if at.Storage != nil {
		return scripts.In(at.Storage, scripts.DefaultLimits(), at.Global), nil
	}
	return scripts.Open(at.Folder, scripts.DefaultLimits())
}

func account(at command.ScriptsAt, name string) (scripts.Account, error) {
	s, err := store(at)
	if err != nil {
		return nil, err
	}
	return s.Account(name), nil
}

// offline looks into what there is: to check a script nothing is needed.
func offline(at command.ScriptsAt, name string) (sieve.Offline, error) {
	o := sieve.Offline{Account: name}
	if at.Storage == nil {
		if _, err := os.Stat(at.Folder); err != nil {
			return o, nil
		}
	}
	var err error
	o.Scripts, err = store(at)
	return o, err
}

func (userScripts) List(ctx context.Context, at command.ScriptsAt, name string) (out []command.UserScript, trouble string, err error) {
	a, err := account(at, name)
	if err != nil {
		return nil, "", err
	}
	list, err := a.List(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, e := range list {
		out = append(out, command.UserScript{Name: e.Name, Size: e.Size, Active: e.Active})
	}
	trouble, err = a.Trouble(ctx)
	return out, trouble, err
}

func (userScripts) Get(ctx context.Context, at command.ScriptsAt, name, script string) ([]byte, error) {
	a, err := account(at, name)
	if err != nil {
		return nil, err
	}
	return a.Get(ctx, script)
}

func (userScripts) Put(ctx context.Context, at command.ScriptsAt, name, script string, text []byte) error {
	a, err := account(at, name)
	if err != nil {
		return err
	}
	return a.Put(ctx, script, text)
}

func (userScripts) Activate(ctx context.Context, at command.ScriptsAt, name, script string) error {
	a, err := account(at, name)
	if err != nil {
		return err
	}
	return a.Activate(ctx, script)
}

func (userScripts) Delete(ctx context.Context, at command.ScriptsAt, name, script string) error {
	a, err := account(at, name)
	if err != nil {
		return err
	}
	return a.Delete(ctx, script)
}

func (userScripts) Check(ctx context.Context, at command.ScriptsAt, name string, text []byte) ([]command.ScriptMistake, error) {
	o, err := offline(at, name)
	if err != nil {
		return nil, err
	}
	var out []command.ScriptMistake
	for _, d := range o.Check(ctx, text) {
		out = append(out, command.ScriptMistake{Line: d.Line, Column: d.Column, Message: d.Message, Warning: d.Warning})
	}
	return out, nil
}

func (userScripts) Try(ctx context.Context, at command.ScriptsAt, name string, text []byte, on command.ScriptTrial) ([]string, error) {
	o, err := offline(at, name)
	if err != nil {
		return nil, err
	}
	return o.Try(ctx, text, on.Message, on.From, on.To)
}
