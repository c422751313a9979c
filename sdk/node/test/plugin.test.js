// Plugins of each kind through the contract, over a socket, without a process.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import * as stagecoach from '../index.js';
import { Failure, Mistake, attribute } from '../index.js';
import { describe } from '../lib/server.js';
import { People } from './plugins/people.js';
import { action, delivery, diagnostics, message, removeFiles, run } from '../testing.js';

after(removeFiles);

async function until(what, ask) {
  for (const end = Date.now() + 20_000; !(await ask()); await sleep(5)) assert.ok(Date.now() < end, `waited in vain for ${what}`);
}

const rejected = (promise) => promise.then(() => assert.fail('it did not fail'), (e) => e);

class Subject extends stagecoach.Filter {
  static about = { name: 'subject', version: '1.0.0', summary: 'Refuses mail by words in its subject', maxConcurrent: 2, needs: { programs: true } };
  static interest = { events: ['MESSAGE'], body: 'HEADER', headerNames: ['Subject'] };
  static config = { forbid: attribute('list(string)'), code: attribute('int', { default: 550 }) };
  static validate({ forbid }) {
    if (forbid.length === 0) throw new Mistake('nothing is forbidden', ['forbid']);
  }

  asked = [];
  ended = 0;
  go = withResolvers();

  async start() {
    this.refused = this.metrics.counter('refused_total', 'Mails refused.');
    this.log = { error: (...said) => this.said.push(said) };
    this.said = [];
  }

  async filter(event) {
    const subject = event.header.get('subject');
    this.asked.push(subject);
    if (subject === 'wait') {
      await Promise.race([this.go.promise, once(event.signal, 'abort')]);
      this.ended++;
    }
    if (subject === 'stuck') await this.go.promise;
    if (subject === 'break') throw new RangeError('broken');
    if (subject === 'odd') return 'REJECT';
    if (subject === 'tags') return stagecoach.accept().tag('dkim', { 'hanks.example': 'pass', n: 2.5, b: true, l: ['p'] }).tag('none', {});
    if (subject === 'unavailable') throw new Failure('UNAVAILABLE', 'no database', stagecoach.smtpReply(451, '4.3.2', 'Come back'));
    const word = this.config.forbid.find((w) => subject.toLowerCase().includes(w));
    if (word) {
      this.refused.add();
      return stagecoach.reject(this.config.code, '5.7.1', `We do not take mail about ${word}`);
    }
  }

  health() { return this.asked.includes('ill') ? 'no list' : null; }
  async close() { this.go.resolve(); }
}

function withResolvers() {
  const out = {};
  out.promise = new Promise((resolve) => { out.resolve = resolve; });
  return out;
}

const FORBID = { forbid: ['lottery'] };

/** A test with a running plugin. */
function runs(name, body, plugin = Subject, config = FORBID) {
  test(name, async () => {
    const r = await run(plugin, config);
    try {
      await body(r, r.value);
    } finally {
      await r.close();
    }
  });
}

runs('verdict, metrics, health', async (subject) => {
  assert.equal(subject.description.needs.programs, true);
  const reply = await subject.ask(message('Subject: Lottery\nFrom: tom@hanks.example\n\nhello\n'));
  assert.deepEqual([action(reply), reply.verdict.reply.code], ['REJECT', 550]);
  assert.equal(action(await subject.ask(message('Subject: hi\n\nhello\n'))), 'ACCEPT');
  assert.deepEqual(await subject.metrics(), { refused_total: 1 });
  assert.equal((await subject.control('health')).ok, true);
  await subject.ask(message('Subject: ill\n\n'));
  assert.deepEqual(await subject.control('health'), { ok: false, detail: 'no list' });
});

runs('a tag of values by name reaches the core', async (subject) => {
  const { tags } = await subject.ask(message('Subject: tags\n\n'));
  const { entries } = tags.dkim.map;
  assert.deepEqual([tags.dkim.value, entries['hanks.example'].text, entries.n.number, entries.b.flag, entries.l.list.values], ['map', 'pass', 2.5, true, ['p']]);
  assert.equal(tags.none.value, 'map');
});

runs('failures are no verdicts', async (subject, value) => {
  const broken = await rejected(subject.ask(message('Subject: break\n\n')));
  assert.deepEqual([broken.kind, broken.message], ['INTERNAL', 'RangeError: broken']);
  assert.match((await rejected(subject.ask(message('Subject: odd\n\n')))).message, /answers with a Verdict, not REJECT/);
  assert.equal(value.said.length, 2);
  const away = await rejected(subject.ask(message('Subject: unavailable\n\n')));
  assert.deepEqual([away.kind, { ...away.reply }], ['UNAVAILABLE', { code: 451, enhanced: '4.3.2', text: 'Come back' }]);
  const other = await rejected(subject.caller.call({ request: 'deliver', deliver: delivery('Subject: hi\n\n') }, 10_000));
  assert.equal(other.kind, 'UNSUPPORTED');
});

runs('a deadline is kept though the handler is not done', async (subject) => {
  assert.equal((await rejected(subject.ask(message('Subject: stuck\n\n'), 200))).kind, 'DEADLINE');
  // There is another place.
  assert.equal(action(await subject.ask(message('Subject: hi\n\n'))), 'ACCEPT');
});

runs('a cancel reaches the handler', async (subject, value) => {
  const asked = rejected(subject.caller.call({ request: 'filter', filter: message('Subject: wait\n\n') }, 60_000));
  await until('the call', () => value.asked.includes('wait'));
  subject.caller.cancel(1);
  await until('the end of the handler', () => value.ended === 1);
  assert.equal((await asked).kind, 'CANCELLED');
});

runs('calls above the credits wait, and far above are refused', async (subject, value) => {
  const v = subject.client.session(), got = [];
  v.on('data', (frame) => got.push(frame));
  for (let id = 1; id <= 100; id++) v.write({ id, body: 'call', call: { deadlineMs: 60_000, request: 'filter', filter: message('Subject: wait\n\n') } });
  await until('refusals', () => got.filter((f) => f.reply.problem?.kind === 'UNAVAILABLE').length === 27);
  assert.equal(value.asked.length, 2); // maxConcurrent
  value.go.resolve();
  await until('the answers', () => got.length === 100);
  assert.equal(got.filter((f) => f.reply.response === 'filter').length, 73); // 4 * 2 + 64, and the one that passed the mark
  v.end();
});

runs('an id in use is refused', async (subject, value) => {
  const v = subject.client.session(), got = [];
  v.on('data', (frame) => got.push(frame));
  for (const id of [7, 7, 0]) v.write({ id, body: 'call', call: { deadlineMs: 60_000, request: 'filter', filter: message('Subject: wait\n\n') } });
  await until('refusals', () => got.length === 2);
  assert.deepEqual(got.map((f) => [f.id, f.reply.problem.kind]), [[7, 'INVALID'], [0, 'INVALID']]);
  value.go.resolve();
  await until('the answer', () => got.length === 3);
  assert.deepEqual([got[2].id, got[2].reply.response], [7, 'filter']);
  const ended = once(v, 'end');
  v.end();
  await ended;
});

test('diagnostics', async () => {
  assert.deepEqual(await diagnostics(Subject, { forbid: [] }), ['forbid: nothing is forbidden']);
  await assert.rejects(run(Subject, { forbid: [] }), /nothing is forbidden/);
  await assert.rejects(run(Subject, { word: 1 }), /no attribute word/);
});

runs('order of the control calls', async (subject) => {
  assert.equal((await rejected(subject.control('configure'))).code, grpc.status.FAILED_PRECONDITION);
  await subject.control('ready'); // once more is no harm
  await subject.control('drain');
  assert.equal((await rejected(subject.control('ready'))).code, grpc.status.FAILED_PRECONDITION);
  // Calls on the session that is open go on.
  assert.equal(action(await subject.ask(message('Subject: hi\n\n'))), 'ACCEPT');
  const late = subject.client.session();
  late.on('data', () => {});
  late.write({ id: 1, body: 'call', call: {} });
  const [e] = await once(late, 'error');
  assert.equal(e.code, grpc.status.FAILED_PRECONDITION);
});

test('a start that fails says why', async () => {
  class Broken extends Subject {
    log = { error() {} };
    async start() { throw new Error('no such database'); }
  }
  await assert.rejects(run(Broken, FORBID), /no such database/);
});

test('mistakes of the author', () => {
  const filter = (about, interest) => class extends stagecoach.Filter { static about = about; static interest = interest; };
  const events = { events: ['MESSAGE'] };
  for (const [plugin, says] of [
    [filter({ name: 'typo' }, { events: ['MESAGE'] }), /'MESAGE' is none of/],
    [filter({}, events), /has no name/],
    [filter({ name: 'mute' }, {}), /never be asked/],
    [filter({ name: 'more', verison: '1' }, events), /no 'verison'/],
    [filter({ name: 'more', needs: { net: true } }, events), /needs has no 'net'/],
    [stagecoach.Plugin, /must derive/],
  ]) assert.throws(() => describe(plugin), says);
});

class Chat extends stagecoach.Deliverer {
  static about = { name: 'chat' };
  sent = [];

  async deliver({ recipients }) {
    return new Map(recipients.map(({ address, index }) => {
      this.sent.push(address);
      if (address.startsWith('later')) return [index, stagecoach.later('busy', { retryAfterMs: 30_000 })];
      if (address.startsWith('nobody')) return [index, stagecoach.failed('no such user', { code: 550, enhanced: '5.1.1' })];
      if (address.startsWith('silent')) return [index, undefined];
      return [index, stagecoach.delivered('posted', { remoteMta: 'chat.ryan.example' })];
    }));
  }
}

runs('outcomes, and the memory of final ones', async (chat, { sent }) => {
  const call = delivery('Subject: hi\n\n', { recipients: ['meg', 'later', 'nobody', 'silent'].map((u) => `${u}@ryan.example`) });
  const first = await chat.deliver(call);
  assert.deepEqual([0, 1, 2, 3].map((i) => [first.get(i).reply.code, first.get(i).retryAfterMs]), [[250, 0], [451, 30_000], [550, 0], [451, 0]]);
  assert.equal(first.get(0).remoteMta, 'chat.ryan.example');
  const again = await chat.deliver(call);
  assert.deepEqual([0, 1, 2, 3].map((i) => again.get(i).reply.code), [250, 451, 550, 451]);
  const times = (user) => sent.filter((a) => a.startsWith(user)).length;
  assert.deepEqual(['meg', 'later', 'nobody'].map(times), [1, 2, 1]);
  await chat.deliver({ ...call, idempotencyKey: 'another' });
  assert.equal(times('meg'), 2);
}, Chat, {});

const slow = withResolvers();
class Slow extends Chat {
  async deliver(d) {
    await super.deliver(d);
    await slow.promise;
    return stagecoach.delivered();
  }
}
runs('a repeated call waits for the first one', async (chat, { sent }) => {
  const call = delivery('Subject: hi\n\n');
  assert.equal((await rejected(chat.deliver(call, 200))).kind, 'DEADLINE');
  const again = (await chat.deliver(call)).get(0);
  assert.deepEqual([again.reply.code, again.retryAfterMs], [451, 10_000]);
  slow.resolve();
  await until('the first answer', async () => (await chat.deliver(call)).get(0).reply.code === 250);
  assert.equal(sent.length, 1);
}, Slow, {});

runs('a directory resolves', async (people) => {
  const results = [];
  for (const a of ['meg@ryan.example', 'info@ryan.example', 'away@ryan.example', 'joe@ryan.example', 'tom@hanks.example']) results.push((await people.resolve(a)).result);
  assert.deepEqual(results, ['MAILBOX', 'ALIAS', 'DISABLED', 'NO_SUCH_USER', 'NOT_MINE']);
  const { directory } = await people.caller.call({ request: 'directory', directory: { op: 'domains', domains: {} } }, 10_000);
  assert.deepEqual(directory.domains.domains, ['ryan.example']);
}, People, {});
