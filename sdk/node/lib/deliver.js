import { Failure, smtpReply } from './fail.js';
import { Delivery, Plugin } from './plugin.js';

const outcome = (code, enhanced, text, { remoteMta = '', retryAfterMs = 0 } = {}) => ({
  reply: smtpReply(code, enhanced, text), remoteMta, retryAfterMs: Math.round(retryAfterMs),
});

/** Handed over, and durable there. remoteMta: whose words they are, for the DSN; '': this plugin's. */
export const delivered = (text = 'delivered', options = {}) => outcome(250, '2.0.0', text, options);

/** Not now: the queue tries again, not before retryAfterMs (0: its own schedule). */
export const later = (text, { code = 451, enhanced = '4.3.0', ...options } = {}) => outcome(code, enhanced, text, options);

/** Never: the sender gets a notice. */
export const failed = (text, { code = 554, enhanced = '5.3.0', ...options } = {}) => outcome(code, enhanced, text, options);

/**
 * A way out: a program, an API, a chat.
 *
 * Final outcomes are remembered for `remembered` deliveries: if the queue asks
 * again because it did not get the answer, they are not delivered twice, and while
 * the first is still under way the queue is told to come back later. The memory
 * ends with the process; what must hold beyond gives idempotencyKey to the other
 * side.
 */
export class Deliverer extends Plugin {
  static kind = 'KIND_DELIVER';
  static remembered = 10_000;
  #final = new Map();
  #underWay = new Set();

  /**
   * An outcome for all recipients (delivered, later, failed), or a Map with one by
   * each recipient's index. An error fails them all for now.
   */
  async deliver(_delivery) {
    throw new Failure('UNSUPPORTED', `${this.constructor.name} has no deliver method`);
  }

  async handle(request, call) {
    if (request.request !== 'deliver') throw new Failure('UNSUPPORTED', 'this plugin delivers: the call is for another kind');
    const { envelope, idempotencyKey } = request.deliver;
    const keyOf = (r) => idempotencyKey && JSON.stringify([idempotencyKey, r.index]);
    const known = new Map(), open = [];
    for (const r of envelope.recipients) {
      const key = keyOf(r);
      if (this.#final.has(key)) known.set(r.index, this.#final.get(key));
      else if (this.#underWay.has(key)) known.set(r.index, later('this delivery is still under way', { retryAfterMs: 10_000 }));
      else open.push(r);
    }
    const got = new Map();
    if (open.length > 0) {
      for (const r of open) if (keyOf(r)) this.#underWay.add(keyOf(r));
      try {
        const answer = await this.deliver(new Delivery(request.deliver, call, open));
        for (const r of open) {
          const o = answer instanceof Map ? answer.get(r.index) : answer;
          if (o) got.set(r.index, o);
          if (o && keyOf(r) && !(o.reply.code >= 400 && o.reply.code < 500)) this.#final.set(keyOf(r), o);
        }
      } finally {
        for (const r of open) this.#underWay.delete(keyOf(r));
      }
      for (const key of this.#final.keys()) {
        if (this.#final.size <= this.constructor.remembered) break;
        this.#final.delete(key);
      }
    }
    const { name } = this.constructor.about;
    const outcomes = envelope.recipients.map((r) => ({
      recipient: r.index, ...(known.get(r.index) ?? got.get(r.index) ?? later(`the plugin ${name} said nothing about ${r.address}`)),
    }));
    return { response: 'deliver', deliver: { outcomes } };
  }
}
