// Many calls over one bidirectional stream: frames with an id, deadlines, cancels
// and credits. Serving is the plugin's end, Caller the other one.
import { once } from 'node:events';
import { Failure, failureOf } from './fail.js';

/** How many calls a caller may have under way when the serving side said nothing. */
export const DEFAULT_CREDITS = 64;
const LONGEST_TIMER = 2 ** 31 - 1;

/** What a handler may know of the call that it answers. */
export class Call {
  #over = new AbortController();
  #deadline;

  constructor(id, deadlineMs, session) {
    this.id = id;
    this.endless = deadlineMs <= 0;
    this.#deadline = this.endless ? Infinity : performance.now() + deadlineMs;
    this.session = session;
    this.timer = null;
  }

  /** Aborts when nobody waits for the answer any more; its reason is a Failure. */
  get signal() { return this.#over.signal; }

  /** Milliseconds until the caller stops waiting; Infinity: for ever. */
  remaining() { return Math.max(0, this.#deadline - performance.now()); }

  /** Sends a reply before the last one; rejects if nobody wants it. */
  async send(reply) {
    this.signal.throwIfAborted();
    await this.session.write({ id: this.id, body: 'reply', reply: { ...reply, more: true } });
  }

  /** For the session. */
  over(why) { this.#over.abort(why); }
}

/**
 * The serving end of one session. Every call gets exactly one last reply: the
 * handler's, or at once DEADLINE or CANCELLED when nobody waits any more. A handler
 * that ignores its signal keeps its place among maxConcurrent until it ends, and
 * the calls behind it wait within their own deadlines.
 */
export class Serving {
  #stream; #handler; #max; #log;
  #calls = new Map();
  #waiting = [];
  #running = 0;
  #closed = false;

  constructor(stream, handler, maxConcurrent, log) {
    this.#stream = stream;
    this.#handler = handler;
    this.#max = maxConcurrent;
    this.#log = log;
  }

  /** Answers until the caller ends the session. */
  serve() {
    this.#stream.on('data', (frame) => this.#receive(frame));
    for (const end of ['end', 'cancelled', 'error']) this.#stream.on(end, () => this.close());
  }

  /** Resolves when the stream has room for more. */
  async write(frame) {
    if (this.#closed) throw new Failure('CANCELLED', 'the session ended');
    if (!this.#stream.write(frame)) await once(this.#stream, 'drain', { signal: AbortSignal.timeout(60_000) });
  }

  /** Changes what the caller may have under way. */
  credit(delta) {
    if (!this.#closed) this.#stream.write({ id: 0, body: 'credit', credit: { delta } });
  }

  /** No call is under way. */
  get idle() { return this.#calls.size === 0; }

  /** Ends calls without a deadline, so that their callers ask the next process. */
  endEndless() {
    for (const call of this.#calls.values()) if (call.endless) this.#end(call, new Failure('UNAVAILABLE', 'draining'));
  }

  /** Ends the session and all its calls. */
  close() {
    if (this.#closed) return;
    for (const call of this.#calls.values()) this.#end(call, new Failure('CANCELLED', 'the session ended'));
    this.#closed = true;
    this.#stream.end();
  }

  #receive(frame) {
    if (frame.body === 'call') {
      this.#start(frame.id, frame.call);
    } else if (frame.body === 'cancel' && this.#calls.has(frame.id)) {
      this.#end(this.#calls.get(frame.id), new Failure('CANCELLED', 'the caller went away'));
    }
  }

  #start(id, request) {
    if (this.#closed) return;
    const call = new Call(id, request.deadlineMs, this);
    let refused = null;
    if (id === 0 || this.#calls.has(id)) refused = new Failure('INVALID', `call id ${id} is 0 or in use`);
    else if (this.#running + this.#waiting.length > 4 * this.#max + DEFAULT_CREDITS) refused = new Failure('UNAVAILABLE', 'more calls than credits');
    if (refused) {
      this.#reply(id, { problem: refused.problem() });
      return;
    }
    this.#calls.set(id, call);
    if (!call.endless) {
      call.timer = setTimeout(() => this.#end(call, new Failure('DEADLINE', 'the time for this call is over')), Math.min(call.remaining(), LONGEST_TIMER));
    }
    this.#waiting.push([call, request]);
    this.#next();
  }

  #next() {
    while (this.#running < this.#max && this.#waiting.length > 0) {
      const [call, request] = this.#waiting.shift();
      if (!call.signal.aborted) void this.#answer(call, request);
    }
  }

  async #answer(call, request) {
    this.#running++;
    try {
      this.#finish(call, await this.#handler(request, call));
    } catch (e) {
      if (!(e instanceof Failure) && !call.signal.aborted) this.#log.error('a call failed', { error: e });
      this.#end(call, failureOf(e));
    }
    this.#running--;
    this.#next();
  }

  /** Answers a call with a failure, if nothing has answered it yet. */
  #end(call, why) {
    this.#finish(call, { problem: why.problem() }, why);
  }

  #finish(call, reply, why) {
    if (this.#calls.get(call.id) !== call) return;
    this.#calls.delete(call.id);
    clearTimeout(call.timer);
    this.#reply(call.id, reply ?? {});
    call.over(why ?? new Failure('CANCELLED', 'the call is answered'));
  }

  #reply(id, reply) {
    if (!this.#closed) this.#stream.write({ id, body: 'reply', reply: { ...reply, more: false } });
  }
}

/**
 * The calling end of a session. An access plugin has one to its storage
 * (Access.peer), a test to the plugin.
 */
export class Caller {
  #stream; #credits;
  #ids = 0;
  #calls = new Map(); // id -> take(reply or Failure)
  #waiting = [];

  constructor(stream, credits = DEFAULT_CREDITS, closed = () => {}) {
    this.#stream = stream;
    this.#credits = credits;
    /** Why the session has ended, a Failure; null while it lives. */
    this.broken = null;
    stream.on('data', (frame) => this.#receive(frame));
    const broke = (why) => {
      if (this.broken) return;
      this.broken = new Failure('UNAVAILABLE', why);
      for (const take of this.#calls.values()) take(this.broken);
      this.#calls.clear();
      for (const go of this.#waiting.splice(0)) go();
      closed();
    };
    stream.on('error', (e) => broke(`session broken: ${e.details ?? e.message}`));
    stream.on('end', () => broke('session closed'));
  }

  #receive(frame) {
    if (frame.body === 'credit') {
      this.#credits += frame.credit.delta;
    } else if (frame.body === 'reply') {
      this.#calls.get(frame.id)?.(frame.reply);
      if (frame.reply.more) return;
      this.#credits++;
      this.#calls.delete(frame.id);
    }
    while (this.#credits > 0 && this.#waiting.length > 0) this.#waiting.shift()();
  }

  /** Makes a call ({ request: 'filter', filter: … }) and resolves to its last reply; rejects with a Failure. timeout in ms; 0: for ever. */
  async call(request, timeout = 0) {
    let last = {};
    for await (const reply of this.stream(request, timeout)) last = reply;
    return last;
  }

  /** The replies of a call that answers more than once (fetch, watch). Leaving the loop early cancels the call. */
  async *stream(request, timeout = 0) {
    const end = timeout > 0 ? performance.now() + timeout : Infinity;
    const left = () => Math.min(end - performance.now(), LONGEST_TIMER);
    const queue = [];
    let wake = () => {};
    const arrival = async (late) => {
      let timer;
      await new Promise((resolve) => {
        wake = resolve;
        if (end < Infinity) timer = setTimeout(resolve, Math.max(0, left()));
      });
      clearTimeout(timer);
      if (left() <= 0) throw new Failure('DEADLINE', late);
    };
    while (!this.broken && this.#credits <= 0) {
      const waits = arrival('no credit in time');
      this.#waiting.push(wake);
      await waits;
    }
    if (this.broken) throw this.broken;
    this.#credits--;
    const id = ++this.#ids;
    this.#calls.set(id, (reply) => { queue.push(reply); wake(); });
    const deadlineMs = end < Infinity ? Math.max(1, Math.floor(left())) : 0;
    this.#stream.write({ id, body: 'call', call: { ...request, deadlineMs } });
    let ended = false;
    try {
      while (!ended) {
        if (queue.length === 0) await arrival('no answer in time');
        for (const reply of queue.splice(0)) {
          ended = reply instanceof Failure || !reply.more;
          if (reply instanceof Failure) throw reply;
          if (reply.problem) throw Failure.of(reply.problem);
          if (!ended || reply.response) yield reply;
        }
      }
    } finally {
      if (!ended && !this.broken) this.#stream.write({ id, body: 'cancel', cancel: {} });
    }
  }

  /** Cancels a call by its number, without waiting: for tests. */
  cancel(id) {
    this.#stream.write({ id, body: 'cancel', cancel: {} });
  }

  /** Ends the session; calls under way fail as UNAVAILABLE. */
  close() {
    this.#stream.cancel();
  }
}
