require ["foreverypart", "mime", "extracttext", "variables", "editheader", "body", "regex", "index", "reject", "encoded-character", "comparator-i;ascii-numeric", "relational"];
foreverypart :name "outer" {
	if header :mime :type "Content-Type" "text" { extracttext :first 100 "text"; break :name "outer"; }
}
addheader :last "X-Text" "${text}";
deleteheader :index 1 :contains "Subject" "sleep";
if body :text :regex "In (S[a-z]+)" { addheader "X-${hex:59}" "yes"; }
if header :count "ge" :comparator "i;ascii-numeric" "received" ["30"] { reject "A loop"; }
