require ["vacation", "vacation-seconds", "date", "relational", "enotify", "duplicate", "environment", "ihave"];
if allof (currentdate :value "ge" "date" "2000-01-01", not duplicate :seconds 600) {
	vacation :seconds 60 :addresses ["meg+film@ryan.example"] :subject "Away" text:
I am at sea.
.
;
}
if environment :is "location" "MS" { notify :importance "1" :message "Mail" "mailto:reed@reed.example?subject=New%20mail"; }
if ihave "nothing-like-it" { nonsense "x"; } elsif not ihave ["regex"] { error "no"; }
