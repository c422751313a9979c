// A plugin as a process: cookie, handshake, AutoMTLS, sockets that are passed to
// it, shutdown, signals.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { own, pem } from '../lib/certificate.js';
import { Plugin as Contract } from '../lib/contract.js';
import { dial } from '../lib/peer.js';
import { Caller } from '../lib/session.js';
import { message, removeFiles } from '../testing.js';

after(removeFiles);

const rejected = (promise) => promise.then(() => assert.fail('it did not fail'), (e) => e);

/** Starts a plugin of ./plugins as the core does; files become descriptors 3 and up. */
function start(t, name, { cookie = 'dbcf8a2c-stagecoach-plugin-v1', tls = own(), versions = '1', files = [] } = {}) {
  const dir = mkdtempSync(path.join(tmpdir(), 'sc'));
  const script = fileURLToPath(new URL(`plugins/${name}.js`, import.meta.url));
  const child = spawn(process.execPath, [script], {
    stdio: ['ignore', 'pipe', 'pipe', ...files],
    env: {
      PATH: process.env.PATH, STAGECOACH_PLUGIN: cookie, PLUGIN_PROTOCOL_VERSIONS: versions, PLUGIN_UNIX_SOCKET_DIR: dir,
      ...(tls && { PLUGIN_CLIENT_CERT: tls.cert }),
    },
  });
  const exited = once(child, 'exit');
  const output = { stdout: '', stderr: '' };
  child.stderr.on('data', (b) => { output.stderr += b; });
  const lines = createInterface({ input: child.stdout });
  const first = once(lines, 'line');
  lines.on('line', (line) => { output.stdout += `${line}\n`; });
  t.after(async () => {
    child.kill('SIGKILL');
    await exited;
    rmSync(dir, { recursive: true, force: true });
  });
  return { child, dir, output, tls, exited: async () => (await once(child, 'close').then(() => exited))[0], first };
}

/** Reads the handshake and connects. */
async function connect(t, plugin, mine = plugin.tls) {
  const [line] = await plugin.first;
  const [one, version, network, socket, protocol, cert] = line.split('|');
  assert.deepEqual([one, version, network, protocol], ['1', '1', 'unix', 'grpc']);
  assert.ok(!cert.endsWith('='));
  const credentials = mine
    ? grpc.credentials.createSsl(Buffer.from(pem(cert)), Buffer.from(mine.key), Buffer.from(mine.cert)) : grpc.credentials.createInsecure();
  const client = new Contract(`unix:${socket}`, credentials, { 'grpc.ssl_target_name_override': 'localhost' });
  t.after(() => client.close());
  const unary = (send) => new Promise((resolve, reject) => { send((e, r) => (e ? reject(e) : resolve(r))); });
  return {
    client,
    control: (name, request = {}) => unary((done) => client[name](request, { deadline: Date.now() + 30_000 }, done)),
    raw: (method) => unary((done) => client.makeUnaryRequest(method, (b) => b, (b) => b, Buffer.alloc(0), done)),
  };
}

const configured = (control, request = {}) => control('configure', { instance: 'filter.subject.x', configJson: Buffer.from('{}'), ...request });

test('a whole life', async (t) => {
  const plugin = start(t, 'subject');
  const { client, control, raw } = await connect(t, plugin);
  assert.deepEqual([...await raw('/grpc.health.v1.Health/Check')], [8, 1]);
  assert.equal((await control('describe')).name, 'subject');
  await configured(control);
  await control('ready');
  const caller = new Caller(client.session());
  const reply = await caller.call({ request: 'filter', filter: message('Subject: hi\n\nhello\n') }, 30_000);
  assert.equal(reply.filter.note, 'filter.subject.x');
  await control('drain', { deadlineMs: 5000 });
  caller.close();
  await raw('/plugin.GRPCController/Shutdown');
  assert.equal(await plugin.exited(), 0);
  assert.equal(plugin.output.stdout.trim().split('\n').length, 1);
  const said = plugin.output.stderr.trim().split('\n');
  assert.ok(said.includes('printed'), plugin.output.stderr);
  const lines = said.filter((l) => l.startsWith('{')).map((l) => JSON.parse(l));
  assert.deepEqual(lines.map((l) => [l['@level'], l['@message']]), [['warn', 'logged'], ['info', 'drained'], ['info', 'closed']]);
  assert.equal(lines[0].size, 'Subject: hi\r\n\r\nhello\r\n'.length);
  assert.deepEqual(readdirSync(plugin.dir), []);
});

test('a stranger gets no connection', async (t) => {
  const { control } = await connect(t, start(t, 'subject'), own());
  assert.equal((await rejected(control('describe'))).code, grpc.status.UNAVAILABLE);
});

test('SIGTERM drains, and SIGINT does nothing', async (t) => {
  const plugin = start(t, 'subject');
  const { control } = await connect(t, plugin);
  await configured(control);
  await control('ready');
  plugin.child.kill('SIGINT');
  assert.equal((await control('health')).ok, true);
  plugin.child.kill('SIGTERM');
  assert.equal(await plugin.exited(), 0);
  assert.match(plugin.output.stderr, /drained[^]*closed/);
});

test('by hand it says what it is', async (t) => {
  const plugin = start(t, 'subject', { cookie: '' });
  assert.equal(await plugin.exited(), 2);
  assert.match(plugin.output.stderr, /filter "subject" "my" \{ \}/);
});

test('another version is refused in words', async (t) => {
  const plugin = start(t, 'subject', { versions: '2,3' });
  assert.equal(await plugin.exited(), 1);
  assert.match(plugin.output.stderr, /the contract's versions 2,3/);
});

/**
 * A listening data socket that only the plugin has: a server here would accept
 * too, and closing it would remove the path.
 */
async function dataSocket(t) {
  const dir = mkdtempSync(path.join(tmpdir(), 'sc'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const server = net.createServer().listen(path.join(dir, 'first'));
  await once(server, 'listening');
  renameSync(path.join(dir, 'first'), path.join(dir, 'data.sock'));
  return { address: path.join(dir, 'data.sock'), server };
}

async function ready(t, name, server, request) {
  const plugin = start(t, name, { tls: null, files: [server._handle.fd] });
  server.close();
  const { control } = await connect(t, plugin, null);
  await configured(control, request);
  await control('ready');
  return { plugin, control };
}

test('peers on the data socket', async (t) => {
  const { address, server } = await dataSocket(t);
  const { plugin, control } = await ready(t, 'people', server, { dataSocketFd: 3, dataTokens: ['secret'] });
  const login = (password) => ({ request: 'directory', directory: { op: 'authenticate', authenticate: { username: 'meg@ryan.example', password } } });
  const refused = await rejected(dial(address, 'guess').call(login('sleepless'), 20_000));
  assert.equal(refused.kind, 'UNAVAILABLE');
  assert.match(refused.message, /not one that was granted/);
  const friend = dial(address, 'secret');
  assert.equal((await friend.call(login('sleepless'), 20_000)).directory.authenticate.account, 'meg@ryan.example');
  assert.equal((await rejected(friend.call(login('wrong'), 20_000))).kind, 'DENIED');
  await control('rebind', { dataTokens: ['more'] });
  assert.equal((await dial(address, 'more').call(login('sleepless'), 20_000)).directory.authenticate.account, 'meg@ryan.example');
  await control('drain', { deadlineMs: 10_000 });
  assert.equal((await rejected(friend.call(login('sleepless'), 20_000))).kind, 'UNAVAILABLE');
  plugin.child.kill('SIGTERM');
  assert.equal(await plugin.exited(), 0);
  assert.ok(existsSync(address), 'the socket is the core\'s, not the plugin\'s to remove');
});

test('an access plugin reads the storage directly', async (t) => {
  const { address, server } = await dataSocket(t);
  await ready(t, 'memory', server, { dataSocketFd: 3, dataTokens: ['t'] });
  const front = net.createServer().listen(0, '127.0.0.1');
  await once(front, 'listening');
  const { port } = front.address();
  const { control, plugin } = await ready(t, 'reader', front, {
    grants: [{ role: 'storage', instance: 'storage.memory.mail', address, token: 't' }], listeners: [{ fd: 3, address: '127.0.0.1' }],
  });
  for (let i = 0; i < 2; i++) {
    assert.equal(String(Buffer.concat(await net.connect(port, '127.0.0.1').toArray())), '1\n2\n');
  }
  assert.equal((await control('health')).ok, true);
  await control('drain', { deadlineMs: 10_000 });
  plugin.child.kill('SIGTERM');
  assert.equal(await plugin.exited(), 0);
});
