// Plugin to plugin. A directory or a storage is called by access plugins on a
// data socket whose listening end the core passed to it as an open file; an access
// plugin calls theirs. Who calls shows a granted token. (Node cannot ask a socket
// for its peer's user, as the Go SDK does besides.)
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import { OPTIONS, Peer as Service } from './contract.js';
import { Caller, DEFAULT_CREDITS, Serving } from './session.js';

const TOKEN_KEY = 'stagecoach-token';
// How long a draining end waits for calls that were written before the other side
// knew of it, in milliseconds.
const QUIET = 50;
const LAST_ANSWERS = 100;

/** The tokens that open a data socket, as hashes: the time that a look-up takes says nothing. */
export class Tokens {
  #set = new Set();
  add(tokens) { for (const t of tokens) if (t) this.#set.add(hash(t)); }
  has(token) { return this.#set.has(hash(token)); }
}

const hash = (token) => createHash('sha256').update(String(token)).digest('base64');

/** Serves Peer on the listening socket that the core passed. */
export class PeerServer {
  #listener; #grpc; #max;
  #sessions = new Set();
  #draining = false;

  constructor(tokens, maxConcurrent, handler, log) {
    this.#max = maxConcurrent;
    this.#grpc = new grpc.Server(OPTIONS);
    this.#grpc.addService(Service.service, {
      session: (stream) => {
        const refuse = (code, details) => stream.emit('error', { code, details });
        if (!tokens.has(stream.metadata.get(TOKEN_KEY)[0] ?? '')) return refuse(grpc.status.UNAUTHENTICATED, 'the token is not one that was granted');
        if (this.#draining) return refuse(grpc.status.UNAVAILABLE, 'draining');
        const serving = new Serving(stream, handler, this.#max, log);
        this.#sessions.add(serving);
        for (const end of ['end', 'cancelled', 'error']) stream.on(end, () => this.#sessions.delete(serving));
        serving.serve();
        // A peer has not seen Describe: it begins with the default and is told the
        // difference. Sent even if there is none: it opens the stream.
        serving.credit(this.#max - DEFAULT_CREDITS);
      },
    });
    const injector = this.#grpc.createConnectionInjector(grpc.ServerCredentials.createInsecure());
    this.#listener = net.createServer({ pauseOnConnect: false }, (socket) => injector.injectConnection(socket));
    this.#listener.on('error', (error) => log.error('the data socket stopped', { error }));
  }

  async listen(fd) {
    this.#listener.listen({ fd });
    await once(this.#listener, 'listening');
  }

  /** Takes nothing new, tells the callers so, waits for what is under way. */
  async drain(ms) {
    this.#draining = true;
    this.#listener.close();
    const end = ms > 0 ? performance.now() + ms : Infinity;
    for (const s of this.#sessions) s.credit(-this.#max);
    let quiet = performance.now();
    while (performance.now() < end && performance.now() - quiet < QUIET) {
      for (const s of this.#sessions) {
        s.endEndless();
        if (!s.idle) quiet = performance.now();
      }
      await sleep(QUIET / 10);
    }
    for (const s of this.#sessions) s.close();
    await ended(this.#grpc);
  }

  /** Ends all at once. */
  stop() {
    this.#draining = true;
    this.#listener.close();
    for (const s of this.#sessions) s.close();
    this.#grpc.forceShutdown();
  }
}

/** Waits for a promise, but not longer than so many milliseconds. */
export async function within(ms, promise) {
  const over = new AbortController();
  try {
    await Promise.race([promise, sleep(ms, null, { signal: over.signal }).catch(() => {})]);
  } finally {
    over.abort();
  }
}

/** Ends a server, but lets its last answers out. Callers keep their connections for as long as they like. */
export async function ended(server) {
  await within(LAST_ANSWERS, new Promise((resolve) => { server.tryShutdown(resolve); }));
  server.forceShutdown();
}

/** The way to another plugin: dials when asked, and again after a break. */
export class Peer {
  #caller = null;

  constructor(grant) {
    this.grant = grant;
  }

  rebind(grant) {
    const moved = grant.address !== this.grant.address || grant.token !== this.grant.token;
    this.grant = grant;
    if (moved) this.close();
  }

  caller() {
    if (!this.#caller || this.#caller.broken) this.#caller = dial(this.grant.address, this.grant.token);
    return this.#caller;
  }

  close() {
    this.#caller?.close();
    this.#caller = null;
  }
}

/** Opens a session on a data socket. */
export function dial(address, token) {
  const client = new Service(`unix:${address}`, grpc.credentials.createInsecure(), OPTIONS);
  const metadata = new grpc.Metadata({ waitForReady: true });
  metadata.set(TOKEN_KEY, token);
  return new Caller(client.session(metadata), DEFAULT_CREDITS, () => client.close());
}
