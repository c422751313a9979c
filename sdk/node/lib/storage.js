// Storages: the calls of StorageCall as methods of an account.
import { stat } from 'node:fs/promises';
import { Failure, failureOf } from './fail.js';
import { Message } from './message.js';
import { parseFlags } from './mime/flags.js';
import { Plugin } from './plugin.js';

// How many octets of fetched items travel in one reply.
const BATCH = 64 << 10;
// How many targets of a deposit are worked on at the same time.
const AT_ONCE = 8;

/**
 * Keeps mailboxes. Write open, which returns an Account; lib/mime has what there
 * is to know of mail, and storage.proto says what each call owes: above all, that
 * what was answered survives a power cut.
 */
export class Storage extends Plugin {
  static kind = 'KIND_STORAGE';

  /** The Account of that name, which comes into being when it is first named; INVALID for a name that no account can have. */
  async open(_name) {
    throw new Failure('UNSUPPORTED', `${this.constructor.name} has no open method`);
  }

  /** A DepositResponse: each target is done, or not, for itself. */
  async deposit({ queueId, message: ref, returnPath, receivedMs, targets }, { signal }) {
    if (!queueId) throw new Failure('INVALID', 'a deposit needs a queue id');
    const message = new Message(ref ?? {}), results = [];
    await readable(message);
    const one = async (target) => {
      try {
        const { bits, keywords } = parseFlags(target.flags);
        const prefix = deliveryFields(returnPath, target.recipient);
        const result = await this.#using(target.account, (account) => account.deliver({
          key: `${queueId}/${target.key}`, message, prefix, mailbox: target.mailbox, bits, keywords, receivedMs, quotaBytes: target.quotaBytes,
        }));
        return { key: target.key, ...result };
      } catch (error) {
        if (!(error instanceof Failure)) this.log.error('a delivery failed', { error });
        return { key: target.key, problem: failureOf(error).problem() };
      }
    };
    for (let i = 0; i < targets.length; i += AT_ONCE) {
      signal.throwIfAborted(); // what was done stays done; the caller repeats all
      results.push(...await Promise.all(targets.slice(i, i + AT_ONCE).map(one)));
    }
    return { results };
  }

  async #using(name, work) {
    const account = await this.open(name);
    try {
      return await work(account);
    } finally {
      await account.close();
    }
  }

  /**
   * Answers a StorageCall with a StorageReply: with deposit, or a method of the
   * account. Several replies (fetch, watch): all but the last by this.send.
   */
  async storage(request, call) {
    const { op, account: name } = request;
    if (op === 'deposit') return { op, deposit: await this.deposit(request.deposit, call) };
    if (!(op in METHODS)) throw new Failure('UNSUPPORTED', `this storage does not know the call ${op ?? '(none)'}`);
    return this.#using(name, async (account) => {
      const answer = account[METHODS[op]](request[op], call.signal);
      if (op === 'fetch') return { op, fetch: { items: await this.#batches(answer, call) } };
      if (op !== 'watch') return { op, [op]: await answer };
      for await (const watch of answer) await this.send(call, { op, watch });
      throw call.signal.reason ?? new Failure('INTERNAL', 'the watch ended by itself');
    });
  }

  /** Sends items in batches and returns the last one. A file goes out at once: it is promised to stay until then. */
  async #batches(items, call) {
    let batch = [], size = 0;
    for await (const item of items) {
      batch.push(item);
      size += weight(item);
      if (size < BATCH && !item.message?.path) continue;
      await this.send(call, { op: 'fetch', fetch: { items: batch } });
      [batch, size] = [[], 0];
    }
    return batch;
  }

  /** Sends a reply before the last one; rejects if nobody wants it. */
  send(call, reply) {
    return call.send({ response: 'storage', storage: reply });
  }

  async handle(request, call) {
    if (request.request !== 'storage') throw new Failure('UNSUPPORTED', 'this plugin is a storage: the call is for another kind');
    return { response: 'storage', storage: await this.storage(request.storage, call) };
  }
}

const METHODS = {
  listMailboxes: 'list', createMailbox: 'create', renameMailbox: 'rename', deleteMailbox: 'delete', updateMailbox: 'update',
  snapshot: 'snapshot', fetch: 'fetch', append: 'append', setFlags: 'setFlags', copy: 'copy', expunge: 'expunge', search: 'search',
  quota: 'quota', watch: 'watch',
};

/**
 * One account, as one call sees it. Each method gets the request of its name in
 * storage.proto and an AbortSignal, and returns the response. Failures: NOT_FOUND
 * (the mailbox), EXISTS, INVALID, OVER_QUOTA, NO_SPACE, UNAVAILABLE.
 */
export class Account {
  /**
   * Delivers to this account, once for each key: one seen before gets its first
   * result again. delivery: key, message (a Message), prefix (a Buffer: what is
   * stored before it), mailbox (by name, as it was written; '': INBOX), bits,
   * keywords, receivedMs, quotaBytes (0: no limit). Returns { mailboxId, uid,
   * messageId }.
   */
  async deliver(_delivery) { throw unknown('deliver'); }

  /** ListMailboxesResponse, containers too. */
  async list(_request, _signal) { throw unknown('list'); }
  /** The Mailbox. */
  async create(_request, _signal) { throw unknown('create'); }
  /** The Mailbox of the new name. */
  async rename(_request, _signal) { throw unknown('rename'); }
  /** DeleteMailboxResponse. */
  async delete(_request, _signal) { throw unknown('delete'); }
  /** The Mailbox. What the request does not change is not among its properties: 'role' in request. */
  async update(_request, _signal) { throw unknown('update'); }
  /** SnapshotResponse, as it is at one moment. */
  async snapshot(_request, _signal) { throw unknown('snapshot'); }
  /** Yields FetchResponse.Items by growing UID. A file that one names stays until the next is asked for. */
  async *fetch(_request, _signal) { throw unknown('fetch'); }
  /** AppendResponse: all or nothing. */
  async append(_request, _signal) { throw unknown('append'); }
  /** SetFlagsResponse. */
  async setFlags(_request, _signal) { throw unknown('setFlags'); }
  /** CopyResponse: all or nothing. */
  async copy(_request, _signal) { throw unknown('copy'); }
  /** ExpungeResponse. */
  async expunge(_request, _signal) { throw unknown('expunge'); }
  /** SearchResponse. */
  async search(_request, _signal) { throw unknown('search'); }
  /** QuotaResponse. */
  async quota(_request, _signal) { throw unknown('quota'); }
  /** Yields ChangeEvents, the first one at once, until the signal aborts. Changes that come faster than they are taken are merged. */
  async *watch(_request, _signal) { throw unknown('watch'); }

  /** The call is done. */
  async close() {}
}

const unknown = (method) => new Failure('UNSUPPORTED', `this storage has no ${method}`);

/**
 * The fields before a message that is delivered: Return-Path (RFC 5321 section 4.4)
 * and Delivered-To. INVALID for an address with a line end, which would add fields.
 */
export function deliveryFields(returnPath, recipient) {
  if (/[\r\n]/.test(returnPath + recipient)) throw new Failure('INVALID', 'an address with a line end');
  return Buffer.from(`Return-Path: <${returnPath}>\r\nDelivered-To: ${recipient}\r\n`);
}

/** A message that cannot be read is nobody's: no target is tried. */
async function readable(message) {
  if (!message.path) return;
  try {
    const { size } = await stat(message.path);
    if (size !== message.size) throw new Error(`the message has ${size} octets, its reference says ${message.size}`);
  } catch (error) {
    throw new Failure('INVALID', `the message cannot be read: ${error.message}`);
  }
}

/** About so many octets in a reply. */
function weight(value) {
  if (value === null || value === undefined) return 0;
  if (typeof value === 'string' || Buffer.isBuffer(value)) return value.length + 2;
  if (typeof value !== 'object') return 4;
  let sum = 2;
  for (const v of Object.values(value)) sum += weight(v);
  return sum;
}
