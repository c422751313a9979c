// The process around an instance: what the core and it agree on at the start
// (hashicorp/go-plugin's handshake), and its end.
import { randomBytes } from 'node:crypto';
import { rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import grpc from '@grpc/grpc-js';
import { own, der } from './certificate.js';
import { Service, describe } from './server.js';

const PROTOCOL_VERSION = 1;
const COOKIE = ['STAGECOACH_PLUGIN', 'dbcf8a2c-stagecoach-plugin-v1'];
// How long a plugin that gets SIGTERM drains, in milliseconds.
const TERM_GRACE = 5000;

/**
 * The main of a plugin: the process ends when the core has told it to, with status
 * 0. Started by hand it says what it is, status 2.
 */
export async function serve(plugin) {
  if (process.env[COOKIE[0]] !== COOKIE[1]) {
    byHand(plugin);
    process.exit(2);
  }
  // The handshake has stdout for itself: what anybody prints goes into the log.
  process.stdout.write = process.stderr.write.bind(process.stderr);
  let service, socket;
  try {
    service = new Service(plugin);
    // Not the process's number: in a namespace of its own it is always the same.
    // Not longer either: the core left room for so much of a socket's 107 octets.
    socket = path.join(process.env.PLUGIN_UNIX_SOCKET_DIR || tmpdir(), `plugin-${randomBytes(4).toString('hex')}`);
    writeSync(1, await listen(service, socket));
  } catch (e) {
    process.stderr.write(`stagecoach plugin: ${e.message}\n`);
    process.exit(1);
  }
  const terminated = new Promise((resolve) => { process.on('SIGTERM', () => resolve('SIGTERM')); });
  // A Ctrl-C goes to the whole foreground group, and the core ends us in order.
  process.on('SIGINT', () => {});
  endWithParent(process.ppid);
  const why = await Promise.race([terminated, service.shutdown]);
  let code = 0;
  try {
    if (why === 'SIGTERM') await service.drain(TERM_GRACE);
    await service.close();
  } catch (error) {
    service.value.log.error('could not close', { error });
    code = 1;
  }
  rmSync(socket, { force: true });
  // Handlers that do not end are not waited for.
  process.exit(code);
}

/** Serves on a socket; resolves to the handshake line. */
async function listen(service, socket) {
  const offered = process.env.PLUGIN_PROTOCOL_VERSIONS || String(PROTOCOL_VERSION);
  if (!offered.split(',').includes(String(PROTOCOL_VERSION))) {
    throw new Error(`the core speaks the contract's versions ${offered}, this plugin ${PROTOCOL_VERSION}`);
  }
  const client = process.env.PLUGIN_CLIENT_CERT;
  let cert = '', credentials;
  if (client) {
    const mine = own();
    cert = der(mine.cert);
    credentials = grpc.ServerCredentials.createSsl(Buffer.from(client),
      [{ private_key: Buffer.from(mine.key), cert_chain: Buffer.from(mine.cert) }], true);
  }
  await service.listen(socket, credentials);
  return `1|${PROTOCOL_VERSION}|unix|${socket}|grpc|${cert}\n`;
}

/**
 * Ends the process when the core is gone: the kernel then gives it another parent.
 * It backs up the signal that the core asks the kernel for.
 */
function endWithParent(parent) {
  setInterval(() => { if (process.ppid !== parent) process.exit(3); }, 1000).unref();
}

/** Tells a person what this program is. */
function byHand(plugin) {
  let d;
  try {
    d = describe(plugin);
  } catch (e) {
    process.stderr.write(`stagecoach plugin: ${e.message}\n`);
    return;
  }
  const kind = d.kind.slice('KIND_'.length).toLowerCase();
  process.stderr.write(`This is a Stagecoach plugin: ${kind} "${d.name}" ${d.version}
${d.summary}
Stagecoach starts it itself. Name it in the configuration:

  plugin "${d.name}" { path = "${path.resolve(process.argv[1])}" }
  ${kind} "${d.name}" "my" { }
`);
}
