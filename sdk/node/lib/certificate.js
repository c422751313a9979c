// A certificate for one process: the core trusts exactly the one that it was told
// in the handshake (AutoMTLS). Node cannot make one; the openssl program does, in
// about 20 ms.
import { spawnSync } from 'node:child_process';

// What must be in it: the core calls the other end "localhost", and a
// self-signed certificate is its own authority.
const ARGS = ['req', '-x509', '-config', '/dev/null', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
  '-days', '3650', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost',
  '-addext', 'basicConstraints=critical,CA:TRUE', '-keyout', '-', '-out', '-'];

/** A new key and its certificate, as PEM. */
export function own() {
  const p = spawnSync('openssl', ARGS, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 20_000, encoding: 'latin1' });
  const key = p.stdout?.match(/-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?-----END [A-Z ]*PRIVATE KEY-----\n/);
  const cert = p.stdout?.match(/-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----\n/);
  if (p.error || p.status !== 0 || !key || !cert) {
    const why = p.error?.code === 'ENOENT' ? 'there is no openssl program on PATH' : p.error?.message ?? p.stderr.trim().slice(-200);
    throw new Error(`cannot make the certificate that the core asks for: install openssl (${why})`);
  }
  return { key: key[0], cert: cert[0] };
}

/** The certificate as the handshake line has it: DER, base64 without padding. */
export function der(pem) {
  return pem.match(/-----BEGIN CERTIFICATE-----([^]*?)-----END CERTIFICATE-----/)[1].replace(/\s|=/g, '');
}

/** The PEM of what der made. */
export function pem(text) {
  return `-----BEGIN CERTIFICATE-----\n${Buffer.from(text, 'base64').toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`;
}
