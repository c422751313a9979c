package conform

// Facts are what a suite cannot find out by itself. All of them are optional:
// without one, the checks that need it are skipped and say so. The tags name
// them as they stand in the file that `stagecoach plugin conform --facts` reads.
type Facts struct {
	Slow  string            `hcl:"slow,optional" doc:"Configuration with which a call takes a minute or more, for deadlines and cancels."`
	Wrong map[string]string `hcl:"wrong,optional" doc:"Configurations that the plugin must refuse, by the attribute at which it must point."`

	Messages []string `hcl:"messages,optional" doc:"Files with mails that a filter does something about."`

	Address  string `hcl:"address,optional" doc:"A mailbox that the directory knows."`
	Account  string `hcl:"account,optional" doc:"What the directory calls its account; empty: as the address."`
	Password string `hcl:"password,optional" doc:"The password of that account."`
	Unknown  string `hcl:"unknown,optional" doc:"An address in the directory's domain that nobody has; empty: one is made up."`
	Alias    string `hcl:"alias,optional" doc:"An address that stands for others."`

	Recipient string `hcl:"recipient,optional" doc:"To whom a delivery succeeds; empty: meg@ryan.example."`
	Witness   string `hcl:"witness,optional" doc:"A directory that gets an entry, or a file that grows, with each delivery."`

	Protocol string `hcl:"protocol,optional" doc:"Of an access plugin: imap, pop3, or silent if its clients speak first; empty: by its greeting."`
}
