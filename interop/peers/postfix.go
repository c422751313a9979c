package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// postfix is Debian's, with a configuration and a queue of its own. It stores
// into Maildirs by its virtual delivery agent, the fastest that it has.
type postfix struct{ dir string }

var _ peer = (*postfix)(nil)

func (*postfix) name() string { return "postfix" }
func (*postfix) port() int    { return 2521 }

func (p *postfix) etc() string { return filepath.Join(p.dir, "etc") }

var (
	chrooted = regexp.MustCompile(`(?m)^([a-z-]+ +[a-z]+ +[-ny] +[-ny] +)y `)
	smtpd    = regexp.MustCompile(`(?m)^smtp +inet .*$`)
)

func (p *postfix) prepare(dir, mode string, sink int) error {
	p.dir = dir
	owner, err := user.Lookup("postfix")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(owner.Uid)
	master, err := os.ReadFile("/usr/share/postfix/master.cf.dist")
	if err != nil {
		return err
	}
	// What runs in a chroot would need one to be set up.
	text := chrooted.ReplaceAllString(string(master), "${1}n ")
	text = smtpd.ReplaceAllString(text, "127.0.0.1:"+strconv.Itoa(p.port())+" inet n - n - - smtpd")
	config := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = mx.ryan.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
smtputf8_enable = no
smtpd_relay_restrictions = permit_mynetworks, reject
`, dir)
	var maps strings.Builder
	if mode == local {
		config += fmt.Sprintf(`virtual_mailbox_domains = ryan.example
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = texthash:%[1]s/etc/users
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[2]d
virtual_minimum_uid = 1
`, dir, uid)
		for u := range users {
			fmt.Fprintf(&maps, "u%[1]d@ryan.example u%[1]d/\n", u)
		}
	} else {
		config += fmt.Sprintf("relayhost = [127.0.0.1]:%d\n", sink)
	}
	for _, d := range []string{"etc", "spool", "data", "mail"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for u := range users {
		for _, d := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(dir, "mail", fmt.Sprintf("u%d", u), d), 0o755); err != nil {
				return err
			}
		}
	}
	for file, text := range map[string]string{"main.cf": config, "master.cf": text, "users": maps.String()} {
		if err := os.WriteFile(filepath.Join(p.etc(), file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, d := range []string{"data", "mail"} {
		if out, err := exec.Command("chown", "-R", owner.Uid, filepath.Join(dir, d)).CombinedOutput(); err != nil {
			return fmt.Errorf("chown: %w: %s", err, out)
		}
	}
	// It complains about documentation that is not there, and ends with 1.
	_ = exec.Command("postfix", "-c", p.etc(), "set-permissions", "create-missing").Run()
	if out, err := exec.Command("postfix", "-c", p.etc(), "check").CombinedOutput(); err != nil {
		return fmt.Errorf("postfix check: %w: %s", err, out)
	}
	return nil
}

func (p *postfix) start(g *group, log *os.File) error {
	return g.run(log, "postfix", "-c", p.etc(), "start")
}

// stop ends its master, which ends the others; its own script would wait five
// seconds for those that are idle.
func (p *postfix) stop(g *group) error { return g.stop(5 * time.Second) }

func (p *postfix) stored() (int, error) { return inNew(filepath.Join(p.dir, "mail")) }
