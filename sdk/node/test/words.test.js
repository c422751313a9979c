// Verdicts, messages, headers, metrics, the log.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Header, Message, accept, defer, disconnect, discard, hold, reject } from '../index.js';
import { Log } from '../lib/log.js';
import { Metrics } from '../lib/metrics.js';
import { reference, removeFiles } from '../testing.js';

after(removeFiles);

test('a verdict says all of it', () => {
  const { reply: r } = reject(550, '5.7.1', 'No').reason('list').delay(2000).skipRest().forRecipient(1, defer(451, '', 'Later'))
    .tag('a', 'x').tag('b', 1.5).tag('c', true).tag('d', ['p', 'q']).tag('e', [])
    .addHeader('X-A', 'one').insertHeader(-1, 'X-B', ' two').replaceHeader('Subject', 1, 'new').deleteHeader('X-C')
    .addRecipient('meg@ryan.example', { notify: ['NEVER'] }).deleteRecipient(0).setSender('').replaceBody('body\r\n')
    .hints({ nextHop: '192.0.2.1:25' }).note('seen').score(-1.5)
    .inject('', ['tom@hanks.example'], Message.fromBuffer(Buffer.from('Subject: away\r\n\r\n')));
  assert.deepEqual(r.verdict, { action: 'REJECT', reply: { code: 550, enhanced: '5.7.1', text: 'No' }, reason: 'list', delayMs: 2000, skipRest: true });
  assert.equal(r.perRecipient[1].action, 'DEFER');
  assert.deepEqual(Object.values(r.tags).map((t) => t[t.value]), ['x', 1.5, true, { values: ['p', 'q'] }, { values: [] }]);
  assert.deepEqual(r.edits.map((e) => e.edit),
    ['insertHeader', 'insertHeader', 'replaceHeader', 'deleteHeader', 'addRecipient', 'deleteRecipient', 'setSender', 'replaceBody']);
  assert.deepEqual(r.edits.slice(0, 2).map((e) => String(e.insertHeader.field.value)), [' one', ' two']);
  assert.equal(r.inject[0].recipients[0].address, 'tom@hanks.example');
});

test('a mail is placed by recipient', () => {
  const { reply: r } = accept().place(0, 'Archive').place(2, { mailbox: 'Lists/a', flags: ['\\Seen'] }, { message: Message.fromBuffer(Buffer.from('Subject: x\r\n\r\n')) });
  assert.deepEqual(r.placements[0], { copies: [{ mailbox: 'Archive', flags: [], message: null }] });
  assert.deepEqual(r.placements[2].copies.map((c) => [c.mailbox, c.flags]), [['Lists/a', ['\\Seen']], ['', []]]);
  assert.equal(String(r.placements[2].copies[1].message.inline), 'Subject: x\r\n\r\n');
  assert.throws(() => accept().place(0, { folder: 'x' }), /mailbox, flags and message, not folder/);
  assert.throws(() => accept().place(0, { flags: '\\Seen' }), /flags of a copy/);
});

test('a tag may be values by name', () => {
  const { reply: r } = accept().tag('dkim', { 'hanks.example': 'pass', n: 2.5, b: true, l: ['p'] }).tag('none', new Map()).tag('m', new Map([['k', 'v']]));
  assert.deepEqual(Object.entries(r.tags.dkim.map.entries).map(([k, t]) => [k, t[t.value]]), [['hanks.example', 'pass'], ['n', 2.5], ['b', true], ['l', { values: ['p'] }]]);
  assert.deepEqual([r.tags.none, r.tags.m.map.entries.k.text], [{ value: 'map', map: { entries: {} } }, 'v']);
  for (const [value, where] of [[{ in: { k: 'v' } }, 't["in"]'], [null, 't'], [new Date(), 't'], [{ k: null }, 't["k"]']]) {
    const v = accept();
    assert.throws(() => v.tag('t', value), (e) => e instanceof TypeError && e.message.startsWith(`tag ${where}: a string, a number`));
    assert.deepEqual(v.reply.tags, {});
  }
});

test('actions', () => {
  assert.deepEqual([accept(), discard(), hold('why'), disconnect(421, '4.3.2', 'Bye')].map((v) => v.reply.verdict.action),
    ['ACCEPT', 'DISCARD', 'HOLD', 'DISCONNECT']);
  assert.equal(hold('why').reply.verdict.reason, 'why');
});

test('a large body must be a file', () => {
  assert.throws(() => accept().replaceBody('x'.repeat(20_000)), /replaceBodyFile/);
  assert.equal(accept().replaceBodyFile('/x', 9).reply.edits[0].replaceBody.body.path, '/x');
});

test('messages are the same inline and as a file', async () => {
  for (const octets of [Buffer.from('Subject: hi\r\n\r\nHello\r\n'), Buffer.from('Subject: hi\r\n\r\n' + 'A long story.\r\n'.repeat(5000))]) {
    const m = new Message(reference(octets));
    assert.equal(m.path !== '', octets.length > 16 << 10);
    assert.ok((await m.read()).equals(octets));
    assert.ok(Buffer.concat(await m.open().toArray()).equals(octets));
    await assert.rejects(m.read(10), RangeError);
  }
});

test('a header is looked up without case', () => {
  const h = new Header([[' one\r\n two ', 'Subject'], [' 1', 'X'], [' 2', 'x']].map(([value, name]) => ({ name, value: Buffer.from(value) })));
  assert.deepEqual([h.get('SUBJECT'), h.values('x'), h.get('no', 'none'), h.has('X'), h.has('Y')], ['one two', ['1', '2'], 'none', true, false]);
  assert.deepEqual([...h][0], ['Subject', 'one two']);
});

test('counter, gauge, histogram', () => {
  const m = new Metrics();
  m.counter('sent_total', 'Sent.', { to: 'meg' }).add();
  m.counter('sent_total', 'Sent.', { to: 'meg' }).add(2);
  m.gauge('open', 'Open.').set(5);
  m.gauge('open', 'Open.').add(-1);
  for (const s of [0.1, 0.5, 1, 7, NaN]) m.histogram('wait_seconds', 'Waited.', [1, 0.1]).observe(s);
  assert.deepEqual(m.snapshot().map((x) => [x.name, x.labels, x.counter, x.value]), [
    ['open', {}, false, 4], ['sent_total', { to: 'meg' }, true, 3],
    ['wait_seconds_bucket', { le: '0.1' }, true, 1], ['wait_seconds_bucket', { le: '1' }, true, 3],
    ['wait_seconds_bucket', { le: '+Inf' }, true, 4], ['wait_seconds_sum', {}, true, 8.6], ['wait_seconds_count', {}, true, 4]]);
  assert.throws(() => m.counter('sent_total', '', { to: 'meg' }).add(-1), RangeError);
  assert.throws(() => m.histogram('open', ''), /already a gauge/);
});

test('a log line is an object', () => {
  let out = '';
  const log = new Log((line) => { out += line; });
  log.warn('seen Meg', { count: 3, big: 7n, '@level': 'no' });
  log.error('failed', { error: new Error('gone') });
  const lines = out.trim().split('\n').map((l) => JSON.parse(l));
  assert.deepEqual(lines.map((l) => [l['@level'], l['@message']]), [['warn', 'seen Meg'], ['error', 'failed']]);
  assert.deepEqual([lines[0].count, lines[0].big, lines[1].error], [3, '7', 'gone']);
  assert.match(lines[1].stack, /words\.test/);
  assert.match(lines[0]['@timestamp'], /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
});
