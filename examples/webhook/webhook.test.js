// What becomes of a mail by what the web server answers, without a process.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { after, afterEach, beforeEach, test } from 'node:test';
import { delivery, diagnostics, removeFiles, run } from '@stagecoach-mta/plugin/testing';
import { Webhook, fields, retryAfter } from './webhook.js';

const MAIL = 'From: Tom <tom@hanks.example>\nSubject: Hello\n =?utf-8?q?M=C3=A9g?=\n\nDon\'t you love New York in the fall?\n';

let server, url, got, answer;

beforeEach(async () => {
  got = [];
  answer = (_, response) => response.end('thanks');
  server = http.createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray());
    got.push({ method: request.method, headers: request.headers, body, json: JSON.parse(body) });
    answer(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${server.address().port}/mail`;
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});
after(removeFiles);

/** A test with a running plugin; call is a mail to two people. */
function runs(name, body, config = {}) {
  test(name, async () => {
    const webhook = await run(Webhook, { url, ...config });
    try {
      await body(webhook, delivery(MAIL, { key: name, recipients: ['meg@ryan.example', 'kate@ryan.example'] }));
    } finally {
      await webhook.close();
    }
  });
}

runs('a mail is one POST', async (webhook, call) => {
  call.envelope.client.user = 'tom';
  call.envelope.tags = { score: { value: 'number', number: 2.5 }, subject: { value: 'list', list: { values: ['a', 'b'] } } };
  const out = await webhook.deliver(call);
  assert.deepEqual([0, 1].map((i) => [out.get(i).reply.code, out.get(i).reply.text]), Array(2).fill([250, `${new URL(url).host} answered 200: thanks`]));
  const [{ method, headers, json }] = got;
  assert.deepEqual([got.length, method, headers['content-type'], headers['idempotency-key']], [1, 'POST', 'application/json', 'a mail is one POST-0-1']);
  assert.equal(headers['stagecoach-signature'], undefined);
  assert.deepEqual(json.recipients.map((r) => r.address), ['meg@ryan.example', 'kate@ryan.example']);
  assert.deepEqual([json.id, json.sender, json.client.user, json.tags], ['test', 'tom@hanks.example', 'tom', { score: 2.5, subject: ['a', 'b'] }]);
  assert.deepEqual(json.header, [['From', 'Tom <tom@hanks.example>'], ['Subject', 'Hello =?utf-8?q?M=C3=A9g?=']]);
  assert.equal(Buffer.from(json.message, 'base64').toString(), MAIL.replaceAll('\n', '\r\n'));
  // Asked once more because the answer was lost: not posted once more.
  await webhook.deliver(call);
  assert.equal(got.length, 1);
  const counted = await webhook.metrics();
  assert.deepEqual([counted['posts_total{result="delivered"}'], counted.answer_seconds_count], [1, 1]);
});

runs('a large mail comes whole, and one above max_size not at all', async (webhook) => {
  const large = `${MAIL}${'A line of a longer story.\n'.repeat(2000)}`;
  assert.equal((await webhook.deliver(delivery(large))).get(0).reply.code, 250);
  assert.equal(got[0].json.message, Buffer.from(large.replaceAll('\n', '\r\n')).toString('base64'));
  const out = (await webhook.deliver(delivery(large + large, { key: 'two' }))).get(0);
  assert.deepEqual([out.reply.code, out.reply.enhanced, got.length], [552, '5.3.4', 1]);
}, { max_size: '64KB' });

runs('it is signed', async (webhook, call) => {
  await webhook.deliver(call);
  assert.equal(got[0].headers['stagecoach-signature'], `sha256=${createHmac('sha256', 'key').update(got[0].body).digest('hex')}`);
  assert.equal(got[0].headers.authorization, 'Bearer x');
}, { secret: 'key', headers: { Authorization: 'Bearer x' } });

for (const [status, code, headers, retry] of [
  [204, 250], [400, 554], [422, 554], [401, 451], [404, 451], [429, 451, { 'Retry-After': '120' }, 120_000], [500, 451], [503, 451], [302, 451, { Location: '/there' }],
]) {
  runs(`status ${status} is ${code}`, async (webhook, call) => {
    answer = (_, response) => response.writeHead(status, headers).end(status === 204 ? undefined : 'because\x07 of this\nand more');
    const { reply, retryAfterMs } = (await webhook.deliver(call)).get(0);
    assert.deepEqual([reply.code, retryAfterMs], [code, retry ?? 0]);
    if (status !== 204) assert.match(reply.text, new RegExp(`answered ${status}: because\\? of this${status === 302 ? ' and points to /there' : '$'}`));
    assert.equal((await webhook.control('health')).ok, code !== 451);
    assert.equal(got.length, 1);
  });
}

runs('the operator says what is permanent', async (webhook, call) => {
  answer = (_, response) => response.writeHead(503).end();
  assert.equal((await webhook.deliver(call)).get(0).reply.code, 554);
}, { permanent: [503] });

runs('no answer in time is tried again', async (webhook, call) => {
  answer = () => {};
  const { reply } = (await webhook.deliver(call)).get(0);
  assert.deepEqual([reply.code, reply.enhanced], [451, '4.4.2']);
  assert.match(reply.text, /did not answer within 0.2 s/);
}, { max_wait: '200ms' });

runs('the time of the core ends the POST', async (webhook, call) => {
  let gone;
  const asked = new Promise((resolve) => {
    answer = (request) => {
      gone = once(request.socket, 'close');
      resolve();
    };
  });
  const failure = webhook.deliver(call, 500).then(() => null, (e) => e);
  await asked;
  assert.equal((await failure).kind, 'DEADLINE');
  await gone;
});

runs('nobody there is tried again', async (webhook, call) => {
  server.close();
  const { reply } = (await webhook.deliver(call)).get(0);
  assert.deepEqual([reply.code, reply.enhanced], [451, '4.4.1']);
  assert.match(reply.text, /ECONNREFUSED/);
  assert.match((await webhook.control('health')).detail, /the last POST failed/);
});

runs('an answer that breaks off in its words is an answer', async (webhook, call) => {
  answer = (_, response) => {
    response.writeHead(200, { 'Content-Length': 1000 });
    response.write('th', () => response.destroy());
  };
  assert.equal((await webhook.deliver(call)).get(0).reply.code, 250);
});

test('diagnostics', async () => {
  for (const [config, want] of [
    [{ url: 'crm' }, ['url: "crm" is not the URL of a web server']],
    [{ url: 'ftp://crm.ryan.example' }, ['url: "ftp://crm.ryan.example" is not the URL of a web server']],
    [{ url: 'https://a:b@crm.ryan.example' }, ['url: a URL with a password in it would be in the log']],
    [{ url: 'http://crm.ryan.example' }, ['url: without TLS everybody on the way can read the mail']],
    [{ url: 'https://crm.ryan.example', max_wait: '0s', permanent: [200] }, ['max_wait: there must be time for an answer', 'permanent[0]: 200 is no status of a failure']],
    [{ url: 'https://crm.ryan.example', headers: { 'a b': 'c' } }, ['headers: "a b" is not a header field']],
    [{ url: 'http://127.0.0.1:8080/' }, []],
  ]) assert.deepEqual(await diagnostics(Webhook, config), want);
});

test('Retry-After and header fields', () => {
  const now = Date.parse('2026-11-24T12:00:00Z');
  assert.deepEqual(['7', 'Tue, 24 Nov 2026 12:01:00 GMT', 'Tue, 24 Nov 2020 12:01:00 GMT', 'soon', null, '999999999'].map((v) => retryAfter(v, now)),
    [7000, 60_000, 0, 0, 0, 86_400_000]);
  assert.deepEqual(fields(Buffer.from('A: b\r\nno field\r\nC : d\r\n\te\r\n\r\nF: g\r\n')), [['A', 'b'], ['C', 'd\te']]);
  assert.deepEqual(fields(Buffer.from('A: b')), [['A', 'b']]);
});
