// What an author derives from: a class per kind. The class says what the plugin
// is, an object of it is one instance: one block of the operator's configuration.
import { checkWord } from './contract.js';
import { Failure } from './fail.js';
import { Log } from './log.js';
import { Header, Message } from './message.js';
import { Metrics } from './metrics.js';
import { Verdict } from './verdict.js';

/**
 * The part that all kinds have in common.
 *
 * Life of an instance: the config is decoded and checked; start opens files and
 * may take its time; then calls come, many at a time; drain finishes what is under
 * way; close closes. The process then ends.
 */
export class Plugin {
  /**
   * Who it is: name as it stands in HCL, version, summary in one line;
   * maxConcurrent calls at a time (64; a storage 4096: every watcher is one); needs
   * beyond its own process, which the sandbox denies otherwise: { network, dataDir,
   * readPaths, writePaths, exclusive, programs }; features of the contract's minor versions.
   */
  static about = {};
  /** Attributes and blocks (lib/schema.js); null: none. */
  static config = null;
  static kind = 'KIND_UNSPECIFIED';

  /** Throws a Mistake, or returns or yields several. Open nothing here. */
  static validate(_config) { return []; }

  /** The decoded block. Set before start, as all of these. */
  config = {};
  /** The block's address: 'filter.greylist.calm'. */
  instance = '';
  /** Belongs to this instance and outlives it; '' unless needed. */
  dataDir = '';
  /** Of the server. */
  hostname = '';
  /** Under which the messages' files lie. */
  spoolDirs = [];
  log = new Log();
  metrics = new Metrics();

  /**
   * Open files, load caches. On a reload of a plugin with needs.exclusive the old
   * process has ended by then.
   */
  async start() {}

  /** Finish what is under way, within so many milliseconds (0: no limit). */
  async drain(_ms) {}

  /** Close what start opened. Comes only if start has ended well. */
  async close() {}

  /** What an operator should know of trouble; null for none. Answer at once. */
  health() { return null; }

  /** Answers one call in the contract's form. The kinds do that for you. */
  async handle(_request, _call) {
    throw new Failure('UNSUPPORTED', 'this plugin takes no calls');
  }
}

/** One question to a filter. */
export class Event {
  constructor(request, call) {
    /** The contract's FilterCall, for what has no name here. */
    this.request = request;
    this.call = call;
    /** 'MESSAGE' and so on. */
    this.kind = request.event;
    this.envelope = request.envelope;
    this.header = new Header(request.header);
    this.message = request.message ? new Message(request.message) : null;
    /** For RESULT and RCPT_REJECTED. */
    this.results = request.results;
    /** For OBSERVE. */
    this.observations = request.observations;
    /** For AUTH. */
    this.authenticated = request.authenticated;
    /** The same when the question is repeated after a crash. */
    this.idempotencyKey = request.idempotencyKey;
  }

  /** The one concerned by RCPT and RCPT_REJECTED, else null. */
  get recipient() {
    if (this.kind !== 'RCPT' && this.kind !== 'RCPT_REJECTED') return null;
    return this.envelope.recipients.find((r) => r.index === this.request.recipient) ?? null;
  }

  /** Aborts when nobody waits for the verdict any more: give it to fetch and the like. */
  get signal() { return this.call.signal; }

  /** Milliseconds left of the operator's time-out; Infinity: no limit. */
  remaining() { return this.call.remaining(); }
}

/** Is asked about a mail and answers with a verdict, tags and edits. */
export class Filter extends Plugin {
  static kind = 'KIND_FILTER';

  /**
   * What it is asked and given to see: { events, effect, body, headerNames,
   * maxSize }; filter.proto says what the words mean. Nothing comes that is not
   * named here.
   */
  static interest = { events: [] };

  /** What this configuration asks for: the same or less. */
  static interestFor(_config) { return this.interest; }

  /**
   * The verdict; nothing accepts. An error is not a verdict: the operator's
   * on_failure decides then.
   */
  async filter(_event) {
    throw new Failure('UNSUPPORTED', `${this.constructor.name} has no filter method`);
  }

  async handle(request, call) {
    if (request.request !== 'filter') throw new Failure('UNSUPPORTED', 'this plugin is a filter: the call is for another kind');
    const verdict = (await this.filter(new Event(request.filter, call))) ?? new Verdict();
    if (!(verdict instanceof Verdict)) throw new TypeError(`a filter answers with a Verdict, not ${verdict}`);
    return { response: 'filter', filter: verdict.reply };
  }
}

/** The contract's form of an interest. */
export function interestOf(interest) {
  const { events = [], effect = 'JUDGE', body = 'NONE', headerNames = [], maxSize = 0 } = interest;
  if (events.length === 0) throw new TypeError('a filter without events would never be asked');
  for (const e of events) checkWord(e, 'FilterEvent');
  checkWord(effect, 'FilterInterest.Effect');
  checkWord(body, 'FilterInterest.Body');
  return { events, effect, body, headerNames: headerNames.map((n) => n.toLowerCase()), maxSize };
}

/** One message for recipients that were all routed to this instance. */
export class Delivery {
  constructor(request, call, recipients) {
    this.call = call;
    this.envelope = request.envelope;
    /** Those to reach: of the envelope's, who was not reached before. */
    this.recipients = recipients;
    this.message = new Message(request.message);
    /** Together with a recipient's index it names one delivery, however often that is tried. */
    this.idempotencyKey = request.idempotencyKey;
  }

  /** Aborts when nobody waits for the outcome any more: give it to fetch and the like. */
  get signal() { return this.call.signal; }

  /** Milliseconds left of the time for this call; Infinity: no limit. */
  remaining() { return this.call.remaining(); }
}
