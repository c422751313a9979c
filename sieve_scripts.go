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

func account(dir, name string) (*scripts.Account, error) {
	f, err := scripts.Open(dir, scripts.DefaultLimits())
	if err != nil {
		return nil, err
	}
	return f.Account(name), nil
}

// offline looks into the folder if there is one: to check a script none is needed.
func offline(dir, name string) (sieve.Offline, error) {
	o := sieve.Offline{Account: name}
	if _, err := os.Stat(dir); err != nil {
		return o, nil
	}
	var err error
	o.Folder, err = scripts.Open(dir, scripts.DefaultLimits())
	return o, err
}

func (userScripts) List(dir, name string) (out []command.UserScript, trouble string, err error) {
	a, err := account(dir, name)
	if err != nil {
		return nil, "", err
	}
	list, err := a.List()
	if err != nil {
		return nil, "", err
	}
	for _, e := range list {
		out = append(out, command.UserScript{Name: e.Name, Size: e.Size, Active: e.Active})
	}
	trouble, err = a.Trouble()
	return out, trouble, err
}

func (userScripts) Get(dir, name, script string) ([]byte, error) {
	a, err := account(dir, name)
	if err != nil {
		return nil, err
	}
	return a.Get(script)
}

func (userScripts) Put(dir, name, script string, text []byte) error {
	a, err := account(dir, name)
	if err != nil {
		return err
	}
	return a.Put(context.Background(), script, text)
}

func (userScripts) Activate(dir, name, script string) error {
	a, err := account(dir, name)
	if err != nil {
		return err
	}
	return a.Activate(context.Background(), script)
}

func (userScripts) Delete(dir, name, script string) error {
	a, err := account(dir, name)
	if err != nil {
		return err
	}
	return a.Delete(context.Background(), script)
}

func (userScripts) Check(dir, name string, text []byte) ([]command.ScriptMistake, error) {
	o, err := offline(dir, name)
	if err != nil {
		return nil, err
	}
	var out []command.ScriptMistake
	for _, d := range o.Check(context.Background(), text) {
		out = append(out, command.ScriptMistake{Line: d.Line, Column: d.Column, Message: d.Message, Warning: d.Warning})
	}
	return out, nil
}

func (userScripts) Try(dir, name string, text []byte, on command.ScriptTrial) ([]string, error) {
	o, err := offline(dir, name)
	if err != nil {
		return nil, err
	}
	return o.Try(context.Background(), text, on.Message, on.From, on.To)
}
