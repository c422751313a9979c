// What a filter answers, in the words of the Go SDK.
import { checkWord } from './contract.js';
import { smtpReply } from './fail.js';
import { INLINE_LIMIT, Message } from './message.js';

/**
 * The answer; make one with accept, reject, defer, discard, hold or disconnect and
 * add to it. The methods return the Verdict itself, so that calls can be chained.
 */
export class Verdict {
  constructor(action = 'ACCEPT', reply = null, reason = '') {
    /** The contract's FilterReply. */
    this.reply = {
      verdict: { action: checkWord(action, 'Verdict.Action'), reply, reason, delayMs: 0, skipRest: false },
      perRecipient: {}, edits: [], tags: {}, hints: null, inject: [], note: '', score: 0, placements: {},
    };
  }

  /** Written into the mail's trace beside the verdict. */
  reason(reason) {
    this.reply.verdict.reason = reason;
    return this;
  }

  /** The client waits so many milliseconds for the reply: at most 60,000. */
  delay(ms) {
    this.reply.verdict.delayMs = Math.round(ms);
    return this;
  }

  /** No later filter of this stage is asked. */
  skipRest() {
    this.reply.verdict.skipRest = true;
    return this;
  }

  /**
   * Another verdict for one recipient (its index of the envelope). Of other only
   * the verdict itself counts, not what was added to it.
   */
  forRecipient(index, other) {
    this.reply.perRecipient[index] = other.reply.verdict;
    return this;
  }

  /** Goes into the mail's trace. */
  note(text) {
    this.reply.note = text;
    return this;
  }

  /** Added to the mail's score, which `when` reads; negative speaks for it. */
  score(points) {
    this.reply.score = points;
    return this;
  }

  /**
   * Sets tags.NAME, which routes and later filters read, to a string, a number, a
   * boolean, a list of strings, or an object or Map of those: values by name, which
   * routes read as tags.NAME.KEY or tags.NAME["key"]. A key may be any text, so that
   * a domain can be one. TypeError for anything else; a map within one is something
   * else.
   */
  tag(name, value) {
    const entries = entriesOf(value);
    if (entries) {
      const made = entries.map(([key, one]) => [key, tagOf(`${name}[${JSON.stringify(key)}]`, one)]);
      this.reply.tags[name] = { value: 'map', map: { entries: Object.fromEntries(made) } };
    } else {
      this.reply.tags[name] = tagOf(name, value);
    }
    return this;
  }

  // Edits count only from a filter whose interest has effect: 'EDIT'.

  /**
   * Puts a field at the top of the header, as a trace field stands (RFC 5321
   * section 4.4). The value has no final CRLF; a folded one keeps its folding.
   */
  addHeader(name, value) {
    return this.insertHeader(0, name, value);
  }

  /** Puts a field at a position: 0 is the top, -1 the end. */
  insertHeader(position, name, value) {
    return this.#edit('insertHeader', { position, field: { name, value: fieldValue(value) } });
  }

  /** Replaces the value of the index-th field of that name, counted from 1 and before this verdict's edits. */
  replaceHeader(name, index, value) {
    return this.#edit('replaceHeader', { name, index, value: fieldValue(value) });
  }

  /** Deletes the index-th field of that name, counted as in replaceHeader; index 0: all of them. */
  deleteHeader(name, index = 0) {
    return this.#edit('deleteHeader', { name, index });
  }

  /**
   * Replaces all after the header's empty line with a small body: at most
   * INLINE_LIMIT octets, lines ended by CRLF. A larger one is a file that
   * replaceBodyFile names.
   */
  replaceBody(body) {
    const octets = Buffer.from(body);
    if (octets.length > INLINE_LIMIT) {
      throw new RangeError(`a body of ${octets.length} octets does not travel inline: write it to a file under dataDir and use replaceBodyFile`);
    }
    return this.#edit('replaceBody', { body: Message.fromBuffer(octets).ref });
  }

  /** replaceBody with a file under the instance's data directory or a spool directory. */
  replaceBodyFile(path, size) {
    return this.#edit('replaceBody', { body: Message.fromFile(path, size).ref });
  }

  /** Adds a forward-path without brackets; dsn are the fields notify and originalRecipient of Recipient (RFC 3461). */
  addRecipient(address, dsn = {}) {
    return this.#edit('addRecipient', { recipient: { ...dsn, address } });
  }

  /** Removes the recipient with that index of the envelope. */
  deleteRecipient(index) {
    return this.#edit('deleteRecipient', { index });
  }

  /** Replaces the reverse-path; '' is the null one. Without parameters those there are stay. */
  setSender(address, parameters = null) {
    return this.#edit('setSender', { address, parameters });
  }

  #edit(edit, body) {
    this.reply.edits.push({ edit, [edit]: body });
    return this;
  }

  /** Steer the queue and the routes: queue, priority, notBeforeMs, expiresMs, nextHop, tlsLevel (RouteHints in filter.proto). */
  hints(hints) {
    this.reply.hints = { ...this.reply.hints, ...hints };
    return this;
  }

  /** Queues a further message: an auto-reply, a copy. */
  inject(sender, recipients, message) {
    this.reply.inject.push({ sender, recipients: recipients.map((address, index) => ({ address, index })), message: message.ref });
    return this;
  }

  /**
   * Says where a storage keeps a recipient's copies (its index of the envelope), at
   * most 64, in place of what the deliver block says. A copy is a mailbox's name,
   * created if missing ('' is INBOX), or { mailbox, flags, message }: flags that it
   * begins with, '\\Seen' and the like or keywords, and a Message if it is not the
   * mail as it is but an edited one: small, or a file as in replaceBodyFile. It counts
   * at PRE_DELIVERY of a delivery into a storage. A repeated delivery stores nothing
   * twice if it gets the same list. Without copies it says nothing: discard() is the
   * verdict for that.
   */
  place(recipient, ...copies) {
    this.reply.placements[recipient] = { copies: copies.map(copyOf) };
    return this;
  }
}

function copyOf(copy) {
  const { mailbox = '', flags = [], message = null, ...unknown } = typeof copy === 'string' ? { mailbox: copy } : copy;
  if (Object.keys(unknown).length > 0) throw new TypeError(`a copy has mailbox, flags and message, not ${Object.keys(unknown).join(', ')}`);
  if (!Array.isArray(flags)) throw new TypeError(`flags of a copy are a list of strings, not ${flags}`);
  return { mailbox, flags, message: message?.ref ?? null };
}

// The pairs of a Map or a plain object; null for anything else.
function entriesOf(value) {
  if (value instanceof Map) return [...value];
  const plain = value !== null && typeof value === 'object' && [Object.prototype, null].includes(Object.getPrototypeOf(value));
  return plain ? Object.entries(value) : null;
}

function tagOf(where, value) {
  const field = { string: 'text', number: 'number', boolean: 'flag' }[typeof value];
  if (!field && !Array.isArray(value)) throw new TypeError(`tag ${where}: a string, a number, a boolean or a list of strings, not ${value}`);
  return field ? { value: field, [field]: value } : { value: 'list', list: { values: value.map(String) } };
}

// A field's value begins with the space that follows the colon.
function fieldValue(value) {
  const octets = Buffer.from(value);
  return octets.length === 0 || ' \t\r'.includes(String.fromCharCode(octets[0])) ? octets : Buffer.concat([Buffer.from(' '), octets]);
}

/** Nothing against the mail. */
export const accept = () => new Verdict();

/**
 * Refuses the mail, or the recipient asked about, for good. code is 5xx; enhanced
 * the status code of RFC 3463 ('5.7.1'; '': derived from code); text is said to
 * the client.
 */
export const reject = (code, enhanced, text) => new Verdict('REJECT', smtpReply(code, enhanced, text));

/** Refuses it for now: the client will try again. code is 4xx. */
export const defer = (code, enhanced, text) => new Verdict('DEFER', smtpReply(code, enhanced, text));

/** Answers success and delivers to nobody. */
export const discard = () => new Verdict('DISCARD');

/** Accepts the mail and keeps it in the queue until an operator releases it. */
export const hold = (reason) => new Verdict('HOLD', null, reason);

/** Says the reply (421 or 554) and ends the connection. */
export const disconnect = (code, enhanced, text) => new Verdict('DISCONNECT', smtpReply(code, enhanced, text));
