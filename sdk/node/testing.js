// Runs a plugin in its own unit test: over a real socket, through Describe,
// Configure, Ready, Session and Drain as the core does it, but without a process.
//
//   const subject = await run(Subject, { forbid: ['lottery'] });
//   const reply = await subject.ask(message('Subject: Lottery\n\nhello\n'));
//   assert.equal(action(reply), 'REJECT');
//   await subject.close();
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import grpc from '@grpc/grpc-js';
import { OPTIONS, Plugin as Contract } from './lib/contract.js';
import { INLINE_LIMIT } from './lib/message.js';
import { Mistake } from './lib/schema.js';
import { Service } from './lib/server.js';
import { Caller } from './lib/session.js';

/**
 * Starts a plugin. config has the attributes that the operator would write, as
 * JSON has them ('2m', '25MB'). A configuration that the plugin refuses rejects
 * with an AssertionError.
 */
export async function run(plugin, config = {}, configure = {}) {
  const r = new Running(plugin);
  try {
    await r.begin(config, configure);
  } catch (e) {
    await r.end();
    throw e;
  }
  return r;
}

class Running {
  #dir = mkdtempSync(path.join(tmpdir(), 'stagecoach'));

  constructor(plugin) {
    this.service = new Service(plugin);
    /** The instance itself. */
    this.value = this.service.value;
  }

  async begin(config, configure) {
    const socket = path.join(this.#dir, 'plugin.sock');
    await this.service.listen(socket);
    this.client = new Contract(`unix:${socket}`, grpc.credentials.createInsecure(), OPTIONS);
    this.description = await this.control('describe');
    const dataDir = this.description.needs?.dataDir ? path.join(this.#dir, 'data') : '';
    if (dataDir) mkdirSync(dataDir);
    const response = await this.control('configure', {
      instance: `test.${this.description.name}.test`, hostname: 'mx.ryan.example', dataDir,
      configJson: Buffer.from(JSON.stringify(withDefaults(config, this.description.schema.block))), ...configure,
    });
    this.diagnostics = response.diagnostics;
    this.interest = response.filter;
    const wrong = this.diagnostics.filter((d) => d.severity === 'ERROR');
    if (wrong.length > 0) {
      throw new assert.AssertionError({ message: `the plugin refuses its configuration: ${wrong.map(text).join('; ')}` });
    }
    await this.control('ready');
    if (this.description.kind !== 'KIND_ACCESS') this.caller = new Caller(this.client.session(), this.description.maxConcurrent);
  }

  /** Drains and ends the plugin. */
  async close() {
    try {
      await this.control('drain', { deadlineMs: 10_000 });
    } finally {
      await this.end();
    }
  }

  async end() {
    this.caller?.close();
    this.client?.close();
    await this.service.close();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** A unary call of the contract: control('health'). */
  control(name, request = {}) {
    return new Promise((resolve, reject) => {
      this.client[name](request, { deadline: Date.now() + 60_000 }, (e, response) => (e ? reject(e) : resolve(response)));
    });
  }

  /** What it counts, by name; labels follow it in braces. */
  async metrics() {
    const { metrics } = await this.control('metrics');
    return Object.fromEntries(metrics.map((m) => {
      const labels = Object.entries(m.labels).sort().map(([k, v]) => `${k}="${v}"`).join(',');
      return [m.name + (labels && `{${labels}}`), m.value];
    }));
  }

  /** Asks a filter. Of the call only what its interest names arrives. */
  async ask(call, timeout = 60_000) {
    const want = this.interest, size = call.message?.size ?? 0;
    assert.ok(want.events.includes(call.event), `the filter did not ask for ${call.event}`);
    assert.ok(!want.maxSize || size <= want.maxSize, `the filter wants no message above ${want.maxSize} octets; this one has ${size}`);
    const header = (call.header ?? []).filter((f) => want.headerNames.length === 0 || want.headerNames.includes(f.name.toLowerCase()));
    const sent = { ...call, message: want.body === 'FULL' ? call.message : null, header: want.body === 'NONE' ? [] : header };
    return (await this.caller.call({ request: 'filter', filter: sent }, timeout)).filter;
  }

  /** Gives a message to a delivery plugin; a Map of outcomes by the recipient's index. */
  async deliver(call, timeout = 60_000) {
    const reply = await this.caller.call({ request: 'deliver', deliver: call }, timeout);
    return new Map(reply.deliver.outcomes.map((o) => [o.recipient, o]));
  }

  /** Asks a directory. */
  async resolve(address, timeout = 60_000) {
    const call = { request: 'directory', directory: { op: 'resolve', resolve: { address } } };
    return (await this.caller.call(call, timeout)).directory.resolve;
  }

  /**
   * Asks a storage: store('meg@ryan.example', 'snapshot', { mailboxId }). op and the
   * answer are as StorageCall and StorageReply have them; fetch answers with all items.
   */
  async store(account, op, request = {}, timeout = 60_000) {
    let answer = null, items = [];
    for await (const { storage } of this.caller.stream({ request: 'storage', storage: { account, op, [op]: request } }, timeout)) {
      answer = storage[op];
      if (op === 'fetch') items = items.concat(answer.items);
    }
    return op === 'fetch' ? items : answer;
  }

  /** A storage's change events; leaving the loop ends them. */
  async *watch(account, request = {}) {
    const call = { request: 'storage', storage: { account, op: 'watch', watch: request } };
    for await (const { storage } of this.caller.stream(call)) yield storage.watch;
  }
}

/** What a plugin has to say against a configuration: "path: summary" for each. */
export async function diagnostics(plugin, config) {
  const r = new Running(plugin);
  try {
    await r.begin(config, {});
  } catch (e) {
    if (!(e instanceof assert.AssertionError) || !r.diagnostics) throw e;
  } finally {
    await r.end();
  }
  return r.diagnostics.map(text);
}

const text = (d) => new Mistake(d.summary, d.path.map((s) => s[s.step])).toString();

/** Fills in what the core fills in. */
function withDefaults(config, block, labels = []) {
  const out = { ...config };
  const known = [...block.attributes.map((a) => a.name), ...block.blocks.map((b) => b.name), ...labels];
  const unknown = Object.keys(out).filter((name) => !known.includes(name));
  assert.equal(unknown.length, 0, `the plugin has no attribute ${unknown.join(', ')}`);
  for (const a of block.attributes) if (a.defaultJson.length > 0) out[a.name] ??= JSON.parse(a.defaultJson);
  for (const b of block.blocks) {
    if (Array.isArray(out[b.name])) out[b.name] = out[b.name].map((one) => withDefaults(one, b.block, b.labels));
    else if (out[b.name]) out[b.name] = withDefaults(out[b.name], b.block, b.labels);
  }
  return out;
}

/** A mail's envelope, from Tom to Meg. */
export function envelope({ sender = 'tom@hanks.example', recipients = ['meg@ryan.example'] } = {}) {
  return {
    transaction: 'test', queueId: 'test', sender, client: { ip: '192.0.2.1', hello: 'mx.hanks.example', protocol: 'ESMTP' },
    recipients: recipients.map((address, index) => ({ address, index })),
  };
}

const files = new Set();

/** A message as the core hands it over: above the inline limit it is a file. */
export function reference(octets) {
  if (octets.length <= INLINE_LIMIT) return { size: octets.length, where: 'inline', inline: octets };
  const file = path.join(tmpdir(), `message-${randomBytes(8).toString('hex')}`);
  writeFileSync(file, octets);
  files.add(file);
  return { size: octets.length, where: 'path', path: file };
}

/** Removes the files of large messages: after(removeFiles). */
export function removeFiles() {
  for (const file of files) rmSync(file, { force: true });
  files.clear();
}

/** A text with the line ends of mail. */
export const crlf = (content) => Buffer.from(content.replace(/\r?\n/g, '\r\n'));

/** A question about a message (line ends as in JavaScript source). */
export function message(content, { event = 'MESSAGE', ...env } = {}) {
  const octets = crlf(content), header = [];
  for (const line of octets.toString('latin1').split('\r\n\r\n')[0].split('\r\n')) {
    const colon = line.indexOf(':');
    if (/^[ \t]/.test(line) && header.length > 0) header.at(-1).value += '\r\n' + line;
    else if (colon > 0) header.push({ name: line.slice(0, colon), value: line.slice(colon + 1) });
  }
  return {
    event, recipient: -1, message: reference(octets), idempotencyKey: 'test', envelope: { ...envelope(env), size: octets.length },
    header: header.map(({ name, value }) => ({ name, value: Buffer.from(value, 'latin1') })),
  };
}

/** A message to deliver. */
export function delivery(content, { key = 'test', ...env } = {}) {
  const octets = crlf(content);
  return { message: reference(octets), idempotencyKey: key, envelope: { ...envelope(env), size: octets.length } };
}

/** A deposit of a message (octets) for targets; each one's recipient is its account, unless it says otherwise. */
export function deposit(octets, targets, { queueId = 'q1', returnPath = 'tom@hanks.example', receivedMs = 1171494123000 } = {}) {
  return {
    queueId, returnPath, receivedMs, message: reference(octets),
    targets: targets.map((t, key) => ({ key, recipient: t.account, ...t })),
  };
}

/** The verdict's action, also for one recipient. */
export const action = (reply, recipient) => (reply.perRecipient[recipient] ?? reply.verdict).action;
