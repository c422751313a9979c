package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"math/rand"
	"strings"
	"time"
)

// The vocabulary of the mails: neither of the words that are searched for is in it.
var words = strings.Fields(`letter shop corner book coffee autumn bouquet pencils school park winter garden river
	morning evening window street market harbour island bridge station ticket journey luggage weather report meeting
	agenda budget figures invoice order delivery contract answer question chapter story author reader paper butterfly
	subway bakery flour bread butter sugar recipe kitchen table dinner friend neighbour cousin aunt uncle wedding
	birthday present picture camera music concert theatre dance summer holiday beach mountain forest`)

// rare stands in the text of one mail in a thousand, and is a subject's last word
// in another.
const rare = "zanzibar"

// mail is number n of the mailbox, the same in every run: 1 to 50 KiB, 6 in the
// median, a third plain text, others with HTML or an attachment.
func mail(n int) []byte {
	r := rand.New(rand.NewSource(int64(n)*7919 + 13))
	size := min(max(int(6*1024*math.Exp(r.NormFloat64()*0.9)), 1024), 50*1024)
	sentence := func(n int) string {
		out := make([]string, n)
		for i := range out {
			out[i] = words[r.Intn(len(words))]
		}
		return strings.Join(out, " ")
	}
	var b bytes.Buffer
	at := time.Date(2024, 1, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(n) * 11 * time.Minute).Format(time.RFC1123Z)
	first, last, domain := sentence(1), sentence(1), sentence(1)+".example"
	fmt.Fprintf(&b, "Return-Path: <%s.%s@%s>\r\n", first, last, domain)
	for hop := 3; hop > 0; hop-- {
		fmt.Fprintf(&b, "Received: from mx%[1]d.%[2]s (mx%[1]d.%[2]s [192.0.2.%[3]d])\r\n\tby in%[1]d.ryan.example with ESMTPS id %08[4]X\r\n\tfor <meg@ryan.example>; %[5]s\r\n",
			hop, domain, r.Intn(250), r.Uint32(), at)
	}
	fmt.Fprintf(&b, "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=%s; s=s1;\r\n\th=from:to:subject:date:message-id; bh=%s;\r\n\tb=%s\r\n",
		domain, noise(r, 32), noise(r, 128))
	fmt.Fprintf(&b, "Message-ID: <%d.%x@%s>\r\nDate: %s\r\nFrom: \"%s %s\" <%s.%s@%s>\r\nTo: Meg <meg@ryan.example>", n, r.Uint64(), domain, at, first, last, first, last, domain)
	if r.Intn(3) == 0 {
		fmt.Fprintf(&b, ", Other <%s@%s>\r\nCc: %s@ryan.example", sentence(1), domain, sentence(1))
	}
	re := ""
	if r.Intn(2) == 0 {
		re = "Re: "
		fmt.Fprintf(&b, "\r\nIn-Reply-To: <%d.x@%s>\r\nReferences: <%d.w@%s> <%d.x@%s>", n-1, domain, n-2, domain, n-1, domain)
	}
	subject := sentence(3 + r.Intn(6))
	if n%1000 == 700 {
		subject += " " + rare
	}
	fmt.Fprintf(&b, "\r\nSubject: %s%s\r\nMIME-Version: 1.0\r\n", re, subject)
	opening := ""
	if n%1000 == 500 {
		opening = "the " + rare + " file\r\n"
	}
	paragraphs := func(octets int, before, after string) {
		for end := b.Len() + octets; b.Len() < end; {
			b.WriteString(before + sentence(10) + after + "\r\n")
		}
	}
	rest := size - b.Len()
	switch kind := r.Intn(10); {
	case kind < 4 || rest < 2000:
		b.WriteString("Content-Type: text/plain; charset=utf-8\r\n\r\n" + opening)
		paragraphs(max(rest, 100), "", "")
	case kind < 8:
		fmt.Fprintf(&b, "Content-Type: multipart/alternative; boundary=\"b%[1]d\"\r\n\r\n--b%[1]d\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%[2]s", n, opening)
		paragraphs(rest/3, "", "")
		fmt.Fprintf(&b, "\r\n--b%d\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body>\r\n", n)
		paragraphs(rest*2/3, "<p>", "</p>")
		fmt.Fprintf(&b, "</body></html>\r\n--b%d--\r\n", n)
	default:
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=\"b%[1]d\"\r\n\r\n--b%[1]d\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%[2]s", n, opening)
		paragraphs(rest/5, "", "")
		fmt.Fprintf(&b, "\r\n--b%[1]d\r\nContent-Type: application/pdf; name=\"f%[1]d.pdf\"\r\nContent-Disposition: attachment; filename=\"f%[1]d.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n", n)
		encoded := noise(r, rest*3/5)
		for len(encoded) > 76 {
			b.WriteString(encoded[:76] + "\r\n")
			encoded = encoded[76:]
		}
		fmt.Fprintf(&b, "%s\r\n--b%d--\r\n", encoded, n)
	}
	return b.Bytes()
}

func noise(r *rand.Rand, octets int) string {
	b := make([]byte, octets)
	r.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}
