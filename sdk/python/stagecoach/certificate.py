"""A certificate for one process: the core trusts exactly the one that it was told
in the handshake (AutoMTLS). Made by the openssl program (17 ms), or by the
cryptography package if there is no such program (200 ms to import)."""
from __future__ import annotations

import base64
import re
import shutil
import subprocess

# What must be in it: the core calls the other end "localhost", and a
# self-signed certificate is its own authority.
_OPENSSL = ["req", "-x509", "-config", "/dev/null", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "3650", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", "-", "-out", "-"]


def own() -> tuple[bytes, bytes]:
    """A new key and its certificate, as PEM. RuntimeError if there is no way to
    make one."""
    why = "there is no openssl program on PATH"
    openssl = shutil.which("openssl")
    if openssl:
        try:
            p = subprocess.run([openssl, *_OPENSSL], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
            key = re.search(b"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n", p.stdout, re.S)
            cert = re.search(b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", p.stdout, re.S)
            if p.returncode == 0 and key and cert:
                return key[0], cert[0]
            why = p.stderr.decode("utf-8", "replace").strip()[-200:]
        except (OSError, subprocess.SubprocessError) as e:
            why = str(e)
    try:
        return _with_cryptography()
    except ImportError as e:
        raise RuntimeError("cannot make the certificate that the core asks for: install openssl or python3-cryptography "
                           "(%s; %s)" % (why, e)) from None


def _with_cryptography() -> tuple[bytes, bytes]:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1)).not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256()))
    return (key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            cert.public_bytes(serialization.Encoding.PEM))


def der(pem: bytes) -> str:
    """The certificate as the handshake line has it: DER, base64 without padding."""
    body = re.search(b"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", pem, re.S)
    return base64.b64encode(base64.b64decode(body[1])).rstrip(b"=").decode()
