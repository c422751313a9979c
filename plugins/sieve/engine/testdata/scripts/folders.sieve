require ["fileinto", "mailbox", "copy", "subaddress", "envelope", "variables", "imap4flags", "special-use"];
if envelope :matches :detail "to" "*" {
	set :lower :upperfirst "name" "${1}";
	addflag ["\\Seen", "$film"];
	fileinto :create :flags "\\Flagged" "Films/${name}";
}
elsif header :contains ["subject", "x-topic"] ["sleep", "seattle"] {
	redirect :copy "reed@reed.example";
	fileinto :specialuse "\\Junk" "Spam";
	stop;
}
else { keep; }
