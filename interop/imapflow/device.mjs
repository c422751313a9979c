// A device with imapflow, told what to do line by line:
//
//   node device.mjs PORT USER PASSWORD
//
// Each line of the input is a JSON array, [COMMAND, ARGUMENT …]; each line of the
// output is {"ok": RESULT} or {"failed": WHY}.
import readline from 'node:readline';
import { ImapFlow } from 'imapflow';

const [port, user, pass] = process.argv.slice(2);
const client = new ImapFlow({
  host: '127.0.0.1',
  port: Number(port),
  secure: false,
  doSTARTTLS: true,
  // The development certificate is self-made: nobody can verify it.
  tls: { rejectUnauthorized: false },
  auth: { user, pass },
  qresync: true,
  logger: false,
});
const told = []; // what the server told of itself
for (const event of ['exists', 'expunge', 'flags']) {
  client.on(event, (of) => told.push({ event, path: of.path, count: of.count, uid: of.uid, flags: [...(of.flags ?? [])] }));
}
client.on('error', (why) => {
  console.log(JSON.stringify({ failed: `connection: ${why.message}` }));
  process.exit(1);
});

async function inside(path, work) {
  const lock = await client.getMailboxLock(path);
  try {
    return await work();
  } finally {
    lock.release();
  }
}

const uid = { uid: true };
const commands = {
  capabilities: async () => [...client.capabilities.keys()],
  enabled: async () => [...client.enabled],
  secure: async () => client.secureConnection,
  folders: async () => (await client.list()).map((f) => ({ path: f.path, use: f.specialUse ?? '' })),
  status: (path) => client.status(path, { messages: true, unseen: true, uidNext: true, uidValidity: true }).then((s) => ({
    messages: s.messages, unseen: s.unseen, uidNext: s.uidNext, uidValidity: String(s.uidValidity),
  })),
  create: async (path) => (await client.mailboxCreate(path)).created,
  rename: async (from, to) => (await client.mailboxRename(from, to)).newPath,
  drop: async (path) => (await client.mailboxDelete(path)).path,
  append: async (path, text, flags) => (await client.append(path, Buffer.from(text, 'base64'), flags)).uid,
  // What is there: identity, flags and size of each mail, and its octets.
  mails: (path) => inside(path, async () => {
    const list = [];
    for await (const m of client.fetch('1:*', { uid: true, flags: true, size: true, envelope: true, bodyStructure: true, source: true })) {
      list.push({
        uid: m.uid, flags: [...m.flags].sort(), size: m.size, subject: m.envelope.subject, type: m.bodyStructure.type,
        source: m.source.toString('base64'),
      });
    }
    return list;
  }),
  download: (path, n) => inside(path, async () => {
    const { content } = await client.download(String(n), undefined, uid);
    const parts = [];
    for await (const part of content) parts.push(part);
    return Buffer.concat(parts).toString('base64');
  }),
  search: (path, query) => inside(path, () => client.search(query, uid)),
  flag: (path, n, flags) => inside(path, () => client.messageFlagsAdd(String(n), flags, uid)),
  unflag: (path, n, flags) => inside(path, () => client.messageFlagsRemove(String(n), flags, uid)),
  move: (path, n, to) => inside(path, async () => [...(await client.messageMove(String(n), to, uid)).uidMap]),
  copy: (path, n, to) => inside(path, async () => [...(await client.messageCopy(String(n), to, uid)).uidMap]),
  remove: (path, n) => inside(path, () => client.messageDelete(String(n), uid)),
  // Opens a mailbox and stays in it: imapflow waits there with IDLE.
  watch: async (path) => {
    await client.mailboxOpen(path);
    told.length = 0;
    return client.mailbox.exists;
  },
  told: async () => told.splice(0),
  bye: async () => {
    await client.logout();
    return true;
  },
};

await client.connect();
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [command, ...args] = JSON.parse(line);
  let answer;
  try {
    answer = { ok: (await commands[command](...args)) ?? null };
  } catch (why) {
    answer = { failed: `${command}: ${why.message} ${why.response?.attributes ? '' : why.responseText ?? ''}` };
  }
  console.log(JSON.stringify(answer));
  if (command === 'bye') process.exit(0);
}
