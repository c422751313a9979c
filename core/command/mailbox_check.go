package command

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/sdk/fail"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

// printLine prints an object on one line.
func printLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// mostFindings are listed; more are only counted, so that a store that is lost does
// not fill the memory.
const mostFindings = 10000

// checkedStorage is what a check found.
type checkedStorage struct {
	Storage  string        `json:"storage"`
	Account  string        `json:"account,omitempty"`
	Checked  []checkedKind `json:"checked"`
	Findings []finding     `json:"findings"`
	// Unlisted are more than are listed.
	Unlisted int `json:"unlisted,omitempty"`
	// Unchecked is why the storage could not be checked.
	Unchecked string `json:"unchecked,omitempty"`
	// Left are those that were not repaired.
	Left     int `json:"left"`
	Repaired int `json:"repaired"`
}

type checkedKind struct {
	What  string `json:"what"`
	Count int64  `json:"count"`
	Wrong int64  `json:"wrong"`
}

type finding struct {
	What     string `json:"what"`
	Where    string `json:"where"`
	Text     string `json:"text"`
	Repair   string `json:"repair,omitempty"`
	Repaired bool   `json:"repaired"`
}

func (f *checkedStorage) take(list []*v1.CheckResponse_Finding) {
	for _, x := range list {
		if x.GetRepaired() {
			f.Repaired++
		} else {
			f.Left++
		}
		if len(f.Findings) == mostFindings {
			f.Unlisted++
			continue
		}
		f.Findings = append(f.Findings, finding{x.GetWhat(), x.GetWhere(), x.GetText(), x.GetRepair(), x.GetRepaired()})
	}
}

func (a *App) checkStorage(cmd *cobra.Command, s storage.Storage, ref, account string, repair bool) (*checkedStorage, error) {
	f := &checkedStorage{Storage: ref, Account: account, Checked: []checkedKind{}, Findings: []finding{}}
	tell := cmd.ErrOrStderr()
	shows := terminal(tell)
	last, err := s.(storage.Checker).Check(cmd.Context(), checkRequest(account, repair), func(p *v1.CheckResponse) error {
		f.take(p.GetFindings())
		if shows {
			fmt.Fprint(tell, "\r\x1b[K")
			for _, k := range p.GetChecked() {
				fmt.Fprintf(tell, "%s %s  ", thousands(k.GetCount()), k.GetWhat())
			}
		}
		return nil
	})
	if shows {
		fmt.Fprint(tell, "\r\x1b[K")
	}
	if fail.Is(err, fail.Unsupported) {
		f.Unchecked = err.Error()
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	f.take(last.GetFindings())
	for _, k := range last.GetChecked() {
		f.Checked = append(f.Checked, checkedKind{k.GetWhat(), k.GetCount(), k.GetWrong()})
	}
	return f, nil
}

func (f *checkedStorage) show(out io.Writer) error {
	if f.Unchecked != "" {
		fmt.Fprintf(out, "%s is not checked: %s\n", f.Storage, f.Unchecked)
		return nil
	}
	fmt.Fprintf(out, "%s\n\n", f.Storage)
	t := newTable(out, "CHECKED", "NUMBER", "WRONG")
	for _, k := range f.Checked {
		wrong := cell{text: thousands(k.Wrong)}
		if k.Wrong > 0 {
			wrong.style = yellow
		}
		if err := t.row(k.What, thousands(k.Count), wrong); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if len(f.Findings) > 0 {
		fmt.Fprintln(out)
		t = newTable(out, "WHAT", "WHERE", "IS WRONG", "REPAIR")
		for _, p := range f.Findings {
			repair := p.Repair
			switch {
			case p.Repaired:
				repair = "done: " + repair
			case repair == "":
				repair = "none"
			}
			if err := t.row(p.What, p.Where, p.Text, repair); err != nil {
				return err
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
		if f.Unlisted > 0 {
			fmt.Fprintf(out, "… and %s more\n", thousands(int64(f.Unlisted)))
		}
	}
	fmt.Fprintln(out)
	switch {
	case f.Left+f.Repaired == 0:
		fmt.Fprintln(out, "All of it is whole.")
	case f.Left == 0:
		fmt.Fprintf(out, "%s, repaired.\n", count(f.Repaired, "problem"))
	case f.Repaired > 0:
		fmt.Fprintf(out, "%s, %s repaired.\n", count(f.Left+f.Repaired, "problem"), thousands(int64(f.Repaired)))
	default:
		fmt.Fprintf(out, "%s. `stagecoach mailbox check --repair` repairs what can be.\n", count(f.Left, "problem"))
	}
	return nil
}

func checkRequest(account string, repair bool) *v1.CheckRequest {
	return &v1.CheckRequest{Account: account, Repair: repair}
}
