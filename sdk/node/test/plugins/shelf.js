import { Account, Failure, Storage } from '../../index.js';

/** A storage in memory: as much of one as shows what the SDK does for it. */
export class Shelf extends Storage {
  static about = { name: 'shelf' };
  opened = 0;
  closed = 0;
  delivered = [];
  mails = [];

  async open(name) {
    if (!name) throw new Failure('INVALID', 'no account');
    this.opened++;
    return new OnShelf(this, name);
  }
}

class OnShelf extends Account {
  constructor(shelf, name) {
    super();
    Object.assign(this, { shelf, name });
  }

  async deliver({ key, message, prefix, mailbox, bits, keywords, receivedMs, quotaBytes }) {
    if (mailbox === 'full') throw new Failure('OVER_QUOTA', 'full');
    if (mailbox === 'broken') throw new RangeError('broken');
    const text = prefix.toString() + await message.read();
    this.shelf.delivered.push({ account: this.name, key, text, mailbox, bits, keywords, receivedMs, quotaBytes });
    return { mailboxId: 'F1', uid: this.shelf.delivered.length, messageId: `M${key}` };
  }

  async update(request) {
    return { id: request.id, name: `role ${'role' in request ? `"${request.role}"` : 'stays'}, subscribed ${request.subscribed ?? 'stays'}` };
  }

  async quota() { return { usedBytes: 2 ** 40, usedMessages: 3 }; }

  async *fetch({ uids }, signal) {
    for (const m of this.shelf.mails) {
      signal.throwIfAborted();
      if (uids.length === 0 || uids.some((r) => r.first === m.uid)) yield m;
    }
  }

  async *watch({ sinceModseq }, signal) {
    yield { modseq: sinceModseq + 1, mailboxIds: ['F1'] };
    await new Promise((resolve) => { signal.addEventListener('abort', resolve, { once: true }); });
  }

  async close() { this.shelf.closed++; }
}
