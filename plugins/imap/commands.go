package imap

import (
	"strconv"
	"strings"
)

// commands by name. A capability is announced below; what it brings stands here.
var commands = map[string]handler{
	"CAPABILITY":     {in: always, run: (*session).capability},
	"NOOP":           {in: always, run: (*session).noop},
	"LOGOUT":         {in: always, run: (*session).logout},
	"ID":             {in: always, run: (*session).id},
	"STARTTLS":       {in: stranger, run: (*session).startTLS, silent: true},
	"LOGIN":          {in: stranger, run: (*session).loginCommand},
	"AUTHENTICATE":   {in: stranger, run: (*session).authenticate},
	"UNAUTHENTICATE": {in: known | selected, run: (*session).unauthenticate},
	"COMPRESS":       {in: known | selected, run: (*session).compress, silent: true},
	"ENABLE":         {in: known | selected, run: (*session).enable},
	"NAMESPACE":      {in: known | selected, run: (*session).namespace},
	"CREATE":         {in: known | selected, run: (*session).create},
	"DELETE":         {in: known | selected, run: (*session).delete},
	"RENAME":         {in: known | selected, run: (*session).rename},
	"SUBSCRIBE":      {in: known | selected, run: (*session).subscribe},
	"UNSUBSCRIBE":    {in: known | selected, run: (*session).unsubscribe},
	"LIST":           {in: known | selected, run: (*session).list},
	"LSUB":           {in: known | selected, run: (*session).lsub},
	"STATUS":         {in: known | selected, run: (*session).status},
	"GETQUOTA":       {in: known | selected, run: (*session).getQuota},
	"GETQUOTAROOT":   {in: known | selected, run: (*session).getQuotaRoot},
	"GETMETADATA":    {in: known | selected, run: (*session).getMetadata},
	"SETMETADATA":    {in: known | selected, run: (*session).setMetadata},
	"APPEND":         {in: known | selected, run: (*session).append},
	"IDLE":           {in: known | selected, run: (*session).idle},
	"NOTIFY":         {in: known | selected, run: (*session).notify},
	"SELECT":         {in: known | selected, run: (*session).selectBox},
	"EXAMINE":        {in: known | selected, run: (*session).selectBox},
	"CHECK":          {in: selected, run: (*session).noop},
	"CLOSE":          {in: selected, run: (*session).closeBox},
	"UNSELECT":       {in: selected, run: (*session).unselect},
	"EXPUNGE":        {in: selected, run: (*session).expunge},
	"UID EXPUNGE":    {in: selected, run: (*session).expunge},
	"FETCH":          {in: selected, run: (*session).fetch, numbers: true, byNumber: true},
	"UID FETCH":      {in: selected, run: (*session).fetch},
	"STORE":          {in: selected, run: (*session).storeFlags, numbers: true, byNumber: true},
	"UID STORE":      {in: selected, run: (*session).storeFlags},
	"COPY":           {in: selected, run: (*session).copy, byNumber: true},
	"UID COPY":       {in: selected, run: (*session).copy},
	"MOVE":           {in: selected, run: (*session).copy, byNumber: true},
	"UID MOVE":       {in: selected, run: (*session).copy},
	"REPLACE":        {in: selected, run: (*session).replace, byNumber: true},
	"UID REPLACE":    {in: selected, run: (*session).replace},
	"SEARCH":         {in: selected, run: (*session).search, numbers: true, byNumber: true},
	"UID SEARCH":     {in: selected, run: (*session).search},
	"SORT":           {in: selected, run: (*session).sort, numbers: true, byNumber: true},
	"UID SORT":       {in: selected, run: (*session).sort},
	"THREAD":         {in: selected, run: (*session).thread, numbers: true, byNumber: true},
	"CANCELUPDATE":   {in: selected, run: (*session).cancelUpdate},
	"UID THREAD":     {in: selected, run: (*session).thread},
}

// announced to a session that has logged in.
var announcedCaps = strings.Fields(`
NAMESPACE CHILDREN LIST-EXTENDED LIST-STATUS SPECIAL-USE CREATE-SPECIAL-USE STATUS=SIZE
UNSELECT UIDPLUS MOVE CONDSTORE QRESYNC UIDONLY
ESEARCH SEARCHRES WITHIN SORT SORT=DISPLAY ESORT THREAD=REFERENCES THREAD=ORDEREDSUBJECT
CONTEXT=SEARCH CONTEXT=SORT PARTIAL
BINARY MULTIAPPEND CATENATE REPLACE UTF8=ACCEPT
QUOTA QUOTA=RES-STORAGE OBJECTID PREVIEW SAVEDATE UNAUTHENTICATE INPROGRESS NOTIFY`)

// capabilities of this session at this moment.
func (ss *session) capabilities() string {
	b := "IMAP4rev1 IMAP4rev2 LITERAL+ ID SASL-IR ENABLE IDLE"
	if ss.account != "" {
		for _, c := range announcedCaps {
			b += " " + c
		}
		if ss.annotates() {
			b += " METADATA"
		}
		if !ss.isCompressed() {
			b += " COMPRESS=DEFLATE"
		}
		return b + " APPENDLIMIT=" + strconv.FormatInt(int64(ss.s.config.MaxMessage), 10)
	}
	if ss.canUpgrade() {
		b += " STARTTLS"
	}
	if !ss.mayLogIn() {
		return b + " LOGINDISABLED"
	}
	for _, m := range ss.mechanisms() {
		b += " AUTH=" + m
	}
	return b
}
