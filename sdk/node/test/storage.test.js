// What Storage does for its author, over a socket.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Plugin as Contract } from '../lib/contract.js';
import { describe } from '../lib/server.js';
import { crlf, deposit, reference, removeFiles, run } from '../testing.js';
import { Shelf } from './plugins/shelf.js';

after(removeFiles);

const MEG = 'meg@ryan.example', TEXT = crlf('Subject: hi\n\nhello\n');
const running = async (body) => {
  const shelf = await run(Shelf);
  await body(shelf, shelf.value).finally(() => shelf.close());
};
const until = async (what, ask) => {
  for (const end = Date.now() + 20_000; !ask(); await sleep(5)) assert.ok(Date.now() < end, `waited in vain for ${what}`);
};

test('a deposit is done, or not, for each target', () => running(async (shelf, value) => {
  value.log = { error() {}, info() {} };
  const { results } = await shelf.store('', 'deposit', deposit(TEXT, [
    { account: MEG, flags: ['\\Seen', '$Work'], mailbox: 'Lists', quotaBytes: 7 }, { account: '' }, { account: MEG, mailbox: 'full' },
    { account: MEG, mailbox: 'broken' }, { account: MEG, flags: ['two words'] }, { account: MEG, recipient: 'a\r\nX: y' }, { account: 'tom@hanks.example' },
  ]));
  assert.deepEqual(results.map((r) => [r.key, r.problem?.kind ?? r.uid]),
    [[0, 1], [1, 'INVALID'], [2, 'OVER_QUOTA'], [3, 'INTERNAL'], [4, 'INVALID'], [5, 'INVALID'], [6, 2]]);
  assert.deepEqual(value.delivered[0], {
    account: MEG, key: 'q1/0', mailbox: 'Lists', bits: 1, keywords: ['$Work'], receivedMs: 1171494123000, quotaBytes: 7,
    text: `Return-Path: <tom@hanks.example>\r\nDelivered-To: ${MEG}\r\n${TEXT}`,
  });
  assert.equal(value.opened, value.closed);
}));

test('a message that cannot be read is nobody\'s', () => running(async (shelf, value) => {
  const large = reference(Buffer.alloc(20_000, 'x'));
  await assert.rejects(shelf.store('', 'deposit', { ...deposit(TEXT, [{ account: MEG }]), message: { ...large, size: 19_999 } }), { kind: 'INVALID' });
  rmSync(large.path);
  await assert.rejects(shelf.store('', 'deposit', { ...deposit(TEXT, [{ account: MEG }]), message: large }), { kind: 'INVALID' });
  await assert.rejects(shelf.store('', 'deposit', { ...deposit(TEXT, [{ account: MEG }]), queueId: '' }), { kind: 'INVALID' });
  assert.deepEqual(value.delivered, []);
}));

test('what an update leaves out is not there; numbers are whole', () => running(async (shelf) => {
  assert.equal((await shelf.store(MEG, 'updateMailbox', { id: 'F1', role: '' })).name, 'role "", subscribed stays');
  assert.equal((await shelf.store(MEG, 'updateMailbox', { id: 'F1', subscribed: false })).name, 'role stays, subscribed false');
  assert.equal((await shelf.store(MEG, 'quota')).usedBytes, 2 ** 40);
}));

test('fetched items travel in batches, a file at once', () => running(async (shelf, value) => {
  value.mails = Array.from({ length: 500 }, (_, i) => ({ uid: i + 1, preview: 'x'.repeat(1000) }));
  value.mails[9].message = { where: 'path', path: '/srv/10.eml', size: 20_000 };
  const sizes = [];
  for await (const reply of shelf.caller.stream({ request: 'storage', storage: { account: MEG, op: 'fetch', fetch: { mailboxId: 'F1' } } })) {
    sizes.push(reply.storage.fetch.items.length);
  }
  assert.equal(sizes[0], 10);
  assert.ok(sizes.length > 5 && sizes.length < 12, `${sizes}`);
  const items = await shelf.store(MEG, 'fetch', { mailboxId: 'F1', uids: [{ first: 3, last: 3 }, { first: 9, last: 9 }] });
  assert.deepEqual(items.map((m) => m.uid), [3, 9]);
  assert.equal(value.opened, value.closed);
}));

test('a watch goes on until it is cancelled', () => running(async (shelf, value) => {
  for await (const event of shelf.watch(MEG, { sinceModseq: 4 })) {
    assert.equal(event.modseq, 5);
    break;
  }
  await until('the account to be closed', () => value.closed === 1);
}));

test('other calls are UNSUPPORTED, also those that the author has not written', () => running(async (shelf) => {
  await assert.rejects(shelf.store(MEG, 'search', { mailboxId: 'F1' }), { kind: 'UNSUPPORTED', message: 'this storage has no search' });
  await assert.rejects(shelf.caller.call({ request: 'storage', storage: { account: MEG } }), { kind: 'UNSUPPORTED' });
  await assert.rejects(shelf.caller.call({ request: 'directory', directory: { op: 'domains', domains: {} } }), { kind: 'UNSUPPORTED' });
}));

test('every watcher is a call: a storage allows many', () => assert.equal(describe(Shelf).maxConcurrent, 4096));

test('a search that nests deep comes through: to refuse it is the storage\'s', () => {
  let c = { test: 'everything', everything: true };
  for (let i = 0; i < 5000; i++) c = { test: 'not', not: c };
  const { requestSerialize, requestDeserialize } = Contract.service.Session;
  const frame = requestSerialize({ id: 1, body: 'call', call: { request: 'storage', storage: { account: MEG, op: 'search', search: { criterion: c } } } });
  assert.equal(requestDeserialize(frame).call.storage.search.criterion.not.test, 'not');
});
