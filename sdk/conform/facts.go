package conform

// Facts are what a suite cannot find out by itself. All of them are optional:
// without one, the checks that need it are skipped and say so. The names in the
// tags are those of the file that `stagecoach plugin conform --facts` reads.
type Facts struct {
	// Slow is a configuration (the text of the block) with which a call takes a
	// minute or more: for the checks of deadlines and cancels.
	Slow string `hcl:"slow,optional"`
	// Wrong are configurations that the plugin must refuse, by the attribute at
	// which it must point.
	Wrong map[string]string `hcl:"wrong,optional"`

	// Messages are paths of mails that a filter does something about.
	Messages []string `hcl:"messages,optional"`

	// Address is a mailbox that the directory knows, and Account its name there
	// (empty: the address).
	Address string `hcl:"address,optional"`
	Account string `hcl:"account,optional"`
	// Password of the user that Account names.
	Password string `hcl:"password,optional"`
	// Unknown is an address in one of the directory's domains that nobody has;
	// empty: one is made up in the domain of Address.
	Unknown string `hcl:"unknown,optional"`
	// Alias is an address that stands for others.
	Alias string `hcl:"alias,optional"`

	// Recipient to whom a delivery succeeds; empty: meg@ryan.example.
	Recipient string `hcl:"recipient,optional"`
	// Witness is a directory that gets one more entry, or a file that grows, with
	// each delivery: for the check that a repeated one is done once.
	Witness string `hcl:"witness,optional"`

	// Protocol of an access plugin: "imap", "pop3" or "silent" (one in which the
	// client speaks first); empty: by its greeting.
	Protocol string `hcl:"protocol,optional"`
}
