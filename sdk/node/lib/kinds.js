// Directories, and access plugins in the contract's own words.
import { Failure, smtpReply } from './fail.js';
import { Plugin } from './plugin.js';

/** The domain is not this directory's. */
export const notMine = () => ({ result: 'NOT_MINE' });
/** The domain is this directory's, the user does not exist. */
export const noSuchUser = () => ({ result: 'NO_SUCH_USER' });
/** A mailbox. options: detail (the part after the separator of a plus-address), quotaBytes, catchAll. */
export const mailbox = (account, options = {}) => ({ result: 'MAILBOX', account, ...options });
/** Stands for other addresses, one step: the core follows and stops at loops. options: catchAll. */
export const alias = (targets, options = {}) => ({ result: 'ALIAS', targets, ...options });
/** Exists and takes no mail now. */
export const disabled = (code, enhanced, text) => ({ result: 'DISABLED', reply: smtpReply(code, enhanced, text) });

/** Knows who exists, what an alias stands for, who may log in. */
export class Directory extends Plugin {
  static kind = 'KIND_DIRECTORY';

  /** What an address stands for: notMine, noSuchUser, mailbox, alias or disabled. */
  async resolve(_address) {
    throw new Failure('UNSUPPORTED', `${this.constructor.name} has no resolve method`);
  }

  /**
   * The account that the password opens, or an AuthenticateResponse; a Failure
   * DENIED for a wrong one, with no word on whether the user exists.
   */
  async authenticate(_request) {
    throw new Failure('UNSUPPORTED', 'this directory checks no passwords');
  }

  /** A CredentialsResponse: the verifier of a challenge mechanism (SCRAM-SHA-256). */
  async credentials(_request) {
    throw new Failure('UNSUPPORTED', 'this directory has no verifiers');
  }

  /** The domains whose users it knows. */
  async domains() { return []; }

  async handle(request, _call) {
    const { op, ...ask } = request.directory ?? {};
    const reply = { op };
    switch (op) {
      case 'resolve':
        reply.resolve = await this.resolve(ask.resolve.address);
        break;
      case 'authenticate': {
        const got = await this.authenticate(ask.authenticate);
        reply.authenticate = typeof got === 'string' ? { account: got } : got;
        break;
      }
      case 'credentials':
        reply.credentials = await this.credentials(ask.credentials);
        break;
      case 'domains':
        reply.domains = { domains: await this.domains() };
        break;
      default:
        throw new Failure('UNSUPPORTED', 'this plugin is a directory: the call is for another kind');
    }
    return { response: 'directory', directory: reply };
  }
}

/** Serves a storage's mailboxes to clients, in the contract's own words. */
export class Access extends Plugin {
  static kind = 'KIND_ACCESS';

  /** What the core bound: { fd, address, implicitTls }; net.createServer().listen({ fd }) serves it. */
  listeners = [];
  /** Certificate and key as PEM: { cert, key }, or null. */
  tls = null;
  insecureAuth = false;
  #stopping = new AbortController();
  #peers = new Map();

  /** Aborts when the process drains: accept no more. */
  get stopping() { return this.#stopping.signal; }

  /** Runs from Ready on; ends soon after stopping has aborted. */
  async serve() {
    throw new Failure('UNSUPPORTED', `${this.constructor.name} has no serve method`);
  }

  /** The grant of a role ('storage', 'auth'): { role, instance, address, token, uploadDir }. */
  grant(role) { return this.#peers.get(role).grant; }

  /**
   * A Caller to the plugin of that role. Ask for it before every call: after a
   * restart of the other one it is a new one. A call that fails as UNAVAILABLE may
   * be repeated if it changes nothing.
   */
  peer(role) { return this.#peers.get(role).caller(); }

  /** For the SDK. */
  introduce(peers) { this.#peers = peers; }
  stop() { this.#stopping.abort(); }
}
