// The contract's Plugin service for one instance of a plugin.
import grpc from '@grpc/grpc-js';
import { OPTIONS, Plugin as Contract } from './contract.js';
import { Access } from './kinds.js';
import { Filter, interestOf } from './plugin.js';
import { Peer, PeerServer, Tokens, ended, within } from './peer.js';
import { Mistake, decode, schemaOf } from './schema.js';
import { Serving } from './session.js';

// sun_path, without the final NUL.
const LONGEST_SOCKET = 107;
// A storage's are more: every watcher is a call.
const DEFAULT_CONCURRENT = 64, STORAGE_CONCURRENT = 4096;
// How long the answer to Shutdown has to get out before the connection is told to end.
const SHUTDOWN_ANSWER = 50;

/** What a plugin is: DescribeResponse. Runs nothing of it; a TypeError if it is not well-formed. */
export function describe(plugin) {
  const most = plugin.kind === 'KIND_STORAGE' ? STORAGE_CONCURRENT : DEFAULT_CONCURRENT;
  const { name, version = '0.0.0', summary = '', features = [], maxConcurrent = most, needs = {}, ...unknown } = plugin.about ?? {};
  if (plugin.kind === undefined || plugin.kind === 'KIND_UNSPECIFIED') {
    throw new TypeError(`${plugin.name} must derive from Filter, Deliverer, Directory, Storage or Access`);
  }
  if (!name) throw new TypeError('static about has no name: the word that stands in the configuration');
  for (const word of Object.keys(unknown)) throw new TypeError(`static about has no '${word}'`);
  for (const word of Object.keys(needs)) {
    if (!['network', 'dataDir', 'readPaths', 'writePaths', 'exclusive', 'programs'].includes(word)) throw new TypeError(`needs has no '${word}'`);
  }
  return {
    name, kind: plugin.kind, version, summary, features, maxConcurrent, needs, schema: schemaOf(plugin.config),
    filter: plugin.prototype instanceof Filter ? interestOf(plugin.interest) : null,
  };
}

const METHODS = ['describe', 'configure', 'ready', 'drain', 'health', 'metrics', 'rebind'];

/** Serves one instance; a plugin's main calls serve instead, this is for tests. */
export class Service {
  #plugin; #server;
  #stage = 'fresh';
  #started = false;
  #fault = null;
  #access = null;
  #peers = new Map();
  #tokens = new Tokens();
  #dataFd = 0;
  #peerServer = null;
  #toldToEnd;

  constructor(plugin) {
    this.#plugin = plugin;
    this.description = describe(plugin);
    this.value = new plugin();
    /** Resolves when the core has told the process to end. */
    this.shutdown = new Promise((resolve) => { this.#toldToEnd = resolve; });
    this.#server = new grpc.Server(OPTIONS);
    const methods = { session: (stream) => this.#session(stream) };
    for (const name of METHODS) {
      methods[name] = (call, done) => {
        this[`_${name}`](call.request).then((response) => done(null, response), (e) => done(
          e.code === undefined ? { code: grpc.status.INTERNAL, details: `${e.name}: ${e.message}` } : e));
      };
    }
    this.#server.addService(Contract.service, methods);
    // SERVING, which is all that go-plugin asks.
    this.#raw('grpc.health.v1.Health', 'Check', () => Buffer.from([0x08, 0x01]));
    this.#raw('plugin.GRPCController', 'Shutdown', () => {
      setTimeout(this.#toldToEnd, SHUTDOWN_ANSWER);
      return Buffer.alloc(0);
    });
  }

  /** A method whose messages are taken as they are. */
  #raw(service, name, answer) {
    const same = (b) => b;
    this.#server.addService({ [name]: {
      path: `/${service}/${name}`, requestStream: false, responseStream: false,
      requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same,
    } }, { [name]: (_, done) => done(null, answer()) });
  }

  /** Binds a unix socket and serves on it. */
  listen(path, credentials = grpc.ServerCredentials.createInsecure()) {
    if (Buffer.byteLength(path) > LONGEST_SOCKET) {
      throw new Error(`cannot listen on ${path}: a socket's path has at most ${LONGEST_SOCKET} octets, not ${Buffer.byteLength(path)}`);
    }
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(`unix:${path}`, credentials, (e) => (e ? reject(e) : resolve()));
    });
  }

  // --- the contract ----------------------------------------------------------

  async _describe() { return this.description; }

  /** Decodes and checks, and opens nothing but the files it was passed. */
  async _configure(request) {
    if (this.#stage !== 'fresh') throw status('FAILED_PRECONDITION', 'this process has been configured; start another one');
    if (request.configMsgpack.length > 0 && request.configJson.length === 0) {
      throw status('INVALID_ARGUMENT', 'config_json is missing: it always comes with config_msgpack');
    }
    const plugin = this.#plugin, { value } = this;
    const { value: config, mistakes } = decode(plugin.config, request.configJson, (c) => plugin.validate(c));
    if (value instanceof Access && mistakes.every((m) => m.warning)) mistakes.push(...this.#configureAccess(value, request));
    const diagnostics = mistakes.map((m) => m.diagnostic());
    if (mistakes.some((m) => !m.warning)) return { diagnostics };
    const filter = value instanceof Filter ? interestOf(plugin.interestFor(config)) : null;
    Object.assign(value, {
      config, instance: request.instance, dataDir: request.dataDir, hostname: request.hostname, spoolDirs: request.spoolDirs,
    });
    this.#tokens.add(request.dataTokens);
    this.#dataFd = request.dataSocketFd;
    this.#stage = 'configured';
    return { diagnostics, filter };
  }

  #configureAccess(value, request) {
    if (request.tls?.certPem.length > 0) value.tls = { cert: request.tls.certPem, key: request.tls.keyPem };
    value.insecureAuth = request.insecureAuth;
    for (const g of request.grants) this.#peers.set(g.role, new Peer(g));
    value.introduce(this.#peers);
    value.listeners = request.listeners;
    return request.listeners.filter((l) => l.implicitTls && !value.tls)
      .map((l) => new Mistake(`${l.address} wants TLS from the first byte, but there is no certificate`, ['tls']));
  }

  async _ready() {
    if (this.#stage === 'ready') return {};
    if (this.#stage !== 'configured') throw status('FAILED_PRECONDITION', 'Ready comes once, after Configure and before Drain');
    this.#stage = 'readying';
    const { value } = this;
    try {
      await value.start();
      this.#started = true;
      if (this.#dataFd > 0) {
        const peers = new PeerServer(this.#tokens, this.description.maxConcurrent, (r, c) => value.handle(r, c), value.log);
        await peers.listen(this.#dataFd);
        this.#peerServer = peers;
      }
    } catch (error) {
      value.log.error('could not start', { error });
      this.#stage = 'configured';
      throw status('UNAVAILABLE', `${error.name}: ${error.message}`);
    }
    this.#stage = 'ready';
    if (value instanceof Access) this.#access = this.#serveAccess(value);
    return {};
  }

  async #serveAccess(value) {
    let why = 'access stopped';
    try {
      await value.serve();
    } catch (error) {
      why += `: ${error.message}`;
      value.log.error('access stopped', { error });
    }
    if (!value.stopping.aborted) this.#fault = why;
  }

  #session(stream) {
    if (this.#stage !== 'ready') return stream.emit('error', status('FAILED_PRECONDITION', 'Session comes after Ready and before Drain'));
    if (this.value instanceof Access) return stream.emit('error', status('UNIMPLEMENTED', 'an access plugin takes no calls'));
    stream.sendMetadata(new grpc.Metadata());
    new Serving(stream, (r, c) => this.value.handle(r, c), this.description.maxConcurrent, this.value.log).serve();
  }

  async _drain({ deadlineMs }) {
    try {
      await this.drain(deadlineMs);
    } catch (error) {
      this.value.log.error('could not drain', { error });
      throw status('DEADLINE_EXCEEDED', `${error.name}: ${error.message}`);
    }
    return {};
  }

  /** Calls on Session go on being answered: the core sends no more. Peers are told to go elsewhere. */
  async drain(ms) {
    const ready = this.#stage === 'ready';
    this.#stage = 'drained';
    const peers = this.#peerServer;
    this.#peerServer = null;
    await peers?.drain(ms);
    if (this.#access) {
      this.value.stop();
      await within(ms || 60_000, this.#access);
    }
    if (ready) await this.value.drain(ms);
  }

  async _health() {
    const trouble = this.#fault ?? this.value.health();
    return { ok: !trouble, detail: trouble ?? '' };
  }

  async _metrics() {
    return { metrics: this.value.metrics.snapshot() };
  }

  async _rebind(request) {
    this.#tokens.add(request.dataTokens);
    for (const g of request.grants) this.#peers.get(g.role)?.rebind(g);
    return {};
  }

  /** Ends the instance. Calls under way are cancelled; a handler that does not look is not waited for. */
  async close() {
    this.#stage = 'closed';
    if (this.#access) {
      this.value.stop();
      await within(1000, this.#access);
    }
    this.#peerServer?.stop();
    for (const p of this.#peers.values()) p.close();
    await ended(this.#server);
    if (this.#started) await this.value.close();
    this.#started = false;
  }
}

const status = (code, details) => Object.assign(new Error(details), { code: grpc.status[code], details });
