"""SMTP by hand, as no library speaks it: pipelining, BDAT, smuggling."""

import socket
import ssl

from harness import DEV, HOST, MEG, TOM, Mailbox, arrived, case, check, emptied, new_mail


class Wire:
    """A raw SMTP connection."""

    def __init__(self, port=DEV.mx):
        self.socket = socket.create_connection((HOST, port), timeout=30)
        self.buffer = b""
        check(self.reply().startswith(b"220 "), "a greeting")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        while b"\r\n" not in self.buffer:
            got = self.socket.recv(65536)
            check(got, f"the connection ended; rest {self.buffer!r}")
            self.buffer += got
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        print("S:", line)
        return line

    def reply(self):
        """The last line of the next reply."""
        while True:
            line = self.line()
            if line[3:4] != b"-":
                return line

    def expect(self, *codes):
        for code in codes:
            got = self.reply()
            check(got.startswith(code.encode()), f"{code} expected, got {got!r}")

    def say(self, text, *codes):
        self.send(text.encode() + b"\r\n")
        self.expect(*codes)


def stuffed(mail):
    return (b"\r\n" + mail).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


@case()
def raw_pipelined():
    """Two transactions, each command group in one write; the second has a bad recipient."""
    emptied()
    mails = [new_mail(), new_mail(body=b".first\r\n..\r\n")]
    with Wire() as w:
        w.say("EHLO hanks.example", "250")
        w.send(f"MAIL FROM:<{TOM}>\r\nRCPT TO:<{MEG}>\r\nDATA\r\n".encode())
        w.expect("250", "250", "354")
        w.send(stuffed(mails[0]) + f"MAIL FROM:<{TOM}>\r\nRCPT TO:<nobody@ryan.example>\r\nRCPT TO:<{MEG}>\r\nDATA\r\n".encode())
        w.expect("250", "250", "550 5.1.1", "250", "354")
        w.send(stuffed(mails[1]) + b"RSET\r\nNOOP\r\nQUIT\r\n")
        w.expect("250", "250", "250", "221")
    arrived(mails)


@case()
def raw_bdat():
    """CHUNKING: several chunks, an empty last one, and lines cut at any octet."""
    emptied()
    mails = [new_mail(body=b".dot\r\nline\r\n"), new_mail(body=b"x" * 70000 + b"\r\n"), new_mail(body=b"one\r\n.\r\ntwo\r\n")]
    with Wire() as w:
        w.say("EHLO hanks.example", "250")
        for mail, cuts in zip(mails, ((7, 8), (1, 40000), (len(mails[2]) - 1,))):
            w.send(f"MAIL FROM:<{TOM}> BODY=8BITMIME\r\nRCPT TO:<{MEG}>\r\n".encode())
            w.expect("250", "250")
            last = 0
            for cut in cuts:
                w.send(f"BDAT {cut - last}\r\n".encode() + mail[last:cut])
                w.expect("250")
                last = cut
            w.send(f"BDAT {len(mail) - last}\r\n".encode() + mail[last:] + b"BDAT 0 LAST\r\n")
            w.expect("250", "250 2.6.0")
        w.say("QUIT", "221")
    arrived(mails)


@case()
def raw_bdat_pipelined():
    emptied()
    mail = new_mail()
    with Wire() as w:
        w.say("EHLO hanks.example", "250")
        w.send(f"MAIL FROM:<{TOM}>\r\nRCPT TO:<{MEG}>\r\nBDAT {len(mail)} LAST\r\n".encode() + mail + b"QUIT\r\n")
        w.expect("250", "250", "250 2.6.0", "221")
    arrived([mail])


@case()
def raw_octet_by_octet():
    """A client that writes single octets, the end of data in five pieces."""
    emptied()
    mail = new_mail(body=b"..\r\n.\r\nslow\r\n")
    with Wire() as w:
        w.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for text, code in (("EHLO hanks.example", "250"), (f"MAIL FROM:<{TOM}>", "250"), (f"RCPT TO:<{MEG}>", "250"), ("DATA", "354")):
            for octet in text.encode() + b"\r\n":
                w.send(bytes([octet]))
            w.expect(code)
        for octet in stuffed(mail):
            w.send(bytes([octet]))
        w.expect("250")
        w.say("QUIT", "221")
    arrived([mail])


@case()
def raw_smuggling():
    """No other end of data than CRLF.CRLF; bare CR, bare LF and NUL are refused."""
    emptied()
    good = new_mail()
    forged = b"MAIL FROM:<forged@hanks.example>\r\nRCPT TO:<" + MEG.encode() + b">\r\nDATA\r\n"
    for end in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"a\0b"):
        with Wire() as w:
            w.say("EHLO hanks.example", "250")
            w.say(f"MAIL FROM:<{TOM}>", "250")
            w.say(f"RCPT TO:<{MEG}>", "250")
            w.say("DATA", "354")
            w.send(new_mail() + b"text" + end + forged + new_mail() + b"\r\n.\r\n")
            got = w.reply()
            check(got[:1] == b"5", f"{end!r} in the data: a 5xx expected, got {got!r}")
            w.say("NOOP", "250")
    with Wire() as w:
        w.say("EHLO hanks.example", "250")
        w.say(f"MAIL FROM:<{TOM}>", "250")
        w.say(f"RCPT TO:<{MEG}>", "250")
        w.say("DATA", "354")
        w.send(stuffed(good))
        w.expect("250")
    arrived([good])


@case()
def raw_starttls_injection():
    """Commands sent in plain text after STARTTLS are not run under TLS."""
    with Wire() as w:
        w.say("EHLO hanks.example", "250")
        w.send(b"STARTTLS\r\nMAIL FROM:<forged@hanks.example>\r\n")
        w.socket.settimeout(5)
        try:
            first = w.reply()
            if first.startswith(b"220"):
                w.buffer = b""
                w.socket = ssl._create_unverified_context().wrap_socket(w.socket)
                w.say("EHLO hanks.example", "250")
                w.say(f"RCPT TO:<{MEG}>", "503")
            else:
                check(first[:1] == b"5", f"refused with {first!r}")
        except (ssl.SSLError, ConnectionError):
            pass  # the connection ended: nothing was run


@case()
def raw_no_mail_without_end():
    """A connection that ends inside of DATA or BDAT leaves no mail behind."""
    emptied()
    for how in ("DATA", "BDAT"):
        mail = new_mail(body=b"half\r\n" * 10)
        with Wire() as w:
            w.say("EHLO hanks.example", "250")
            w.say(f"MAIL FROM:<{TOM}>", "250")
            w.say(f"RCPT TO:<{MEG}>", "250")
            if how == "DATA":
                w.say("DATA", "354")
                w.send(mail + b"\r\n.")
            else:
                w.send(f"BDAT {len(mail)}\r\n".encode() + mail)
                w.expect("250")
    whole = new_mail()
    with Wire() as w:
        w.say("EHLO hanks.example", "250")
        w.send(f"MAIL FROM:<{TOM}>\r\nRCPT TO:<{MEG}>\r\nDATA\r\n".encode())
        w.expect("250", "250", "354")
        w.send(stuffed(whole))
        w.expect("250")
    arrived([whole])
    with Mailbox() as box:
        check(box.count() == 1, "one mail only")
