#!/usr/bin/env node
// Delivers mail by POST: a JSON object to a URL.
import { createHmac } from 'node:crypto';
import { isIP } from 'node:net';
import { pathToFileURL } from 'node:url';
import { Deliverer, Mistake, SECONDS, attribute, delivered, failed, later, serve, unfold } from '@stagecoach-mta/plugin';

// How much of an answer's body is read for its first line.
const ANSWER = 2048;
const LONGEST_WAIT = 86_400_000;

export class Webhook extends Deliverer {
  static about = { name: 'webhook', version: '1.0.0', summary: 'Delivers mail by POST, as JSON', needs: { network: true } };
  static config = {
    url: attribute('string', { doc: 'Where to POST to.', example: '"https://crm.ryan.example/mail"' }),
    headers: attribute('map(string)', { default: {}, sensitive: true, doc: 'Header fields to send along.', example: '{ Authorization = "Bearer …" }' }),
    secret: attribute('string', { default: '', sensitive: true, doc: 'Key of the signature in `Stagecoach-Signature`; none: no signature.', example: 'file("/etc/stagecoach/webhook.key")' }),
    max_size: attribute('size', { default: '10MB', doc: 'A larger message fails for good.' }),
    max_wait: attribute('duration', { default: '20s', doc: 'How long to wait for the answer.' }),
    permanent: attribute('list(int)', { default: [400, 409, 410, 413, 415, 422], doc: 'Statuses after which the mail fails for good. After any other than 2xx it is tried again.' }),
  };

  static *validate({ url, headers, max_wait: wait, permanent }) {
    const at = URL.canParse(url) ? new URL(url) : null;
    if (!at || !['http:', 'https:'].includes(at.protocol)) {
      yield new Mistake(`"${url}" is not the URL of a web server`, ['url'], { detail: 'Write one that begins with https://.' });
    } else if (at.username || at.password) {
      yield new Mistake('a URL with a password in it would be in the log', ['url'], { detail: 'Write an Authorization field into headers.' });
    } else if (at.protocol === 'http:' && !loopback(at.hostname)) {
      yield new Mistake('without TLS everybody on the way can read the mail', ['url'], { detail: 'Write https:// if the server has it.', warning: true });
    }
    for (const [name, value] of Object.entries(headers)) {
      try {
        new Headers([[name, value]]);
      } catch {
        yield new Mistake(`"${name}" is not a header field`, ['headers']);
      }
    }
    if (wait <= 0) yield new Mistake('there must be time for an answer', ['max_wait'], { detail: 'Write "20s".' });
    for (const [i, status] of permanent.entries()) {
      if (status < 400 || status > 599) yield new Mistake(`${status} is no status of a failure`, ['permanent', i], { detail: '400 to 599.' });
    }
  }

  #trouble = null;

  async start() {
    this.host = new URL(this.config.url).host;
    this.seconds = this.metrics.histogram('answer_seconds', 'Time to the answer.', SECONDS);
  }

  health() { return this.#trouble; }

  async deliver(delivery) {
    const { max_size: limit } = this.config;
    if (delivery.message.size > limit) {
      return this.#count('failed', failed(`the message has ${delivery.message.size} octets; max_size is ${limit}`, { code: 552, enhanced: '5.3.4' }));
    }
    const body = JSON.stringify(await describe(delivery));
    const begin = performance.now();
    try {
      const response = await this.#post(delivery, body);
      // The status is the answer, whatever becomes of the words behind it.
      const text = await firstLine(response).catch(() => '');
      return this.#outcome(response, text);
    } catch (e) {
      if (delivery.signal.aborted) throw e;
      const late = e.name === 'TimeoutError';
      const why = late ? `${this.host} did not answer within ${this.config.max_wait / 1000} s` : `${this.host}: ${e.cause?.code ?? e.cause?.message ?? e.message}`;
      return this.#later(why, { enhanced: late ? '4.4.2' : '4.4.1' });
    } finally {
      this.seconds.observe((performance.now() - begin) / 1000);
    }
  }

  #post(delivery, body) {
    const { url, headers, secret, max_wait: wait } = this.config;
    return fetch(url, {
      method: 'POST', body, redirect: 'manual',
      signal: AbortSignal.any([delivery.signal, AbortSignal.timeout(wait)]),
      headers: {
        'User-Agent': 'stagecoach-webhook/1', ...headers, 'Content-Type': 'application/json',
        // With the recipients: what is open at a later attempt may be fewer.
        'Idempotency-Key': [delivery.idempotencyKey, ...delivery.recipients.map((r) => r.index)].join('-'),
        ...(secret && { 'Stagecoach-Signature': `sha256=${createHmac('sha256', secret).update(body).digest('hex')}` }),
      },
    });
  }

  #outcome({ status, headers }, text) {
    const said = `${this.host} answered ${status}${text && `: ${text}`}`;
    if (status >= 200 && status < 300) {
      this.#trouble = null;
      return this.#count('delivered', delivered(said, { remoteMta: this.host }));
    }
    if (this.config.permanent.includes(status)) {
      return this.#count('failed', failed(said, { remoteMta: this.host }));
    }
    if (status >= 300 && status < 400) return this.#later(`${said} and points to ${headers.get('location')}: write that as url, if it is right`);
    return this.#later(said, { retryAfterMs: retryAfter(headers.get('retry-after')) });
  }

  #later(why, options) {
    this.#trouble = `the last POST failed: ${why}`;
    this.log.warn('tried again later', { why });
    return this.#count('later', later(why, { remoteMta: this.host, ...options }));
  }

  #count(result, outcome) {
    this.metrics.counter('posts_total', 'Deliveries by their result.', { result }).add();
    return outcome;
  }
}

/** The object that is sent. */
async function describe({ envelope, recipients, message, idempotencyKey }) {
  const octets = await message.read();
  const { client } = envelope;
  return {
    id: envelope.queueId || idempotencyKey,
    received: new Date(envelope.receivedMs).toISOString(),
    sender: envelope.sender,
    recipients: recipients.map(({ address, account, detail }) => ({ address, account, detail })),
    client: client && { ip: client.ip, hello: client.hello, name: client.rdns, user: client.user, tls: client.tls },
    tags: Object.fromEntries(Object.entries(envelope.tags ?? {}).map(([name, tag]) => [name, tag.value === 'list' ? tag.list.values : tag[tag.value]])),
    header: fields(octets),
    message: octets.toString('base64'),
  };
}

/** The header's fields, unfolded: [["Subject", "Hello"], …]. */
export function fields(octets) {
  const end = octets.indexOf('\r\n\r\n');
  const head = octets.subarray(0, end < 0 ? octets.length : end).toString('latin1');
  return head.split(/\r\n(?![ \t])/).filter((line) => line.indexOf(':') > 0).map((line) => {
    const colon = line.indexOf(':');
    return [line.slice(0, colon).trimEnd(), unfold(Buffer.from(line.slice(colon + 1), 'latin1'))];
  });
}

/** The first line of an answer, printable, of at most 200 characters. */
async function firstLine(response) {
  let text = '';
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk).toString('utf8');
    if (text.length > ANSWER || text.includes('\n')) break; // leaving the loop drops the rest
  }
  return text.split('\n')[0].replace(/[^\x20-\x7e]/g, '?').trim().slice(0, 200);
}

/** Milliseconds of a Retry-After field (RFC 9110 section 10.2.3); 0: none. */
export function retryAfter(value, now = Date.now()) {
  if (!value) return 0;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  return ms > 0 ? Math.min(ms, LONGEST_WAIT) : 0;
}

const loopback = (host) => host === 'localhost' || host === '[::1]' || (isIP(host) === 4 && host.startsWith('127.'));

if (import.meta.url === pathToFileURL(process.argv[1]).href) serve(Webhook);
