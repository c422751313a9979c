// The message as plugins see it: a header to look into and a body to read,
// wherever the octets are.
import { createReadStream } from 'node:fs';
import { open as openFile, readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';

/** The largest message, in octets, that travels within a call; a larger one is a file. */
export const INLINE_LIMIT = 16 << 10;

/** A message by value or by reference: the same to its reader. Its file stays until the call returns. */
export class Message {
  constructor(ref) {
    /** The contract's form. */
    this.ref = ref;
  }

  /** A small message (at most INLINE_LIMIT octets, CRLF line ends). */
  static fromBuffer(octets) {
    return new Message({ size: octets.length, where: 'inline', inline: octets });
  }

  /** A file under the instance's data directory or a spool directory. */
  static fromFile(path, size) {
    return new Message({ size, where: 'path', path });
  }

  /** Size in octets. */
  get size() { return this.ref.size; }

  /** Path of the file; '' for a message in memory. */
  get path() { return this.ref.path ?? ''; }

  /** A Readable from the first octet of the header on. */
  open() {
    return this.path ? createReadStream(this.path) : Readable.from([this.ref.inline ?? Buffer.alloc(0)], { objectMode: false });
  }

  /** For reading at any place: read(offset, length) resolves to a Buffer (shorter at the end), close(). */
  async reader() {
    return this.path ? new FileReader(await openFile(this.path)) : new MemoryReader(this.ref.inline ?? Buffer.alloc(0));
  }

  /** The whole message as a Buffer; a RangeError above limit octets (0: no limit). */
  async read(limit = 0) {
    if (limit && this.size > limit) throw new RangeError(`a message of ${this.size} octets is over the limit of ${limit}`);
    return this.path ? readFile(this.path) : this.ref.inline ?? Buffer.alloc(0);
  }
}

/** Octets at any place of a message in memory. */
class MemoryReader {
  constructor(octets) { this.octets = octets; }
  async read(offset, length) { return this.octets.subarray(offset, offset + length); }
  async close() {}
}

/** Octets at any place of a message's file. */
class FileReader {
  constructor(file) { this.file = file; }

  async read(offset, length) {
    const { buffer, bytesRead } = await this.file.read(Buffer.alloc(length), 0, length, offset);
    return buffer.subarray(0, bytesRead);
  }

  async close() { await this.file.close(); }
}

/** The fields asked for, in the message's order, looked up without case. */
export class Header {
  constructor(fields) {
    /** As they stand in the message: { name, value: Buffer }. */
    this.fields = fields;
  }

  /** The first field of that name, unfolded and trimmed. */
  get(name, otherwise = '') {
    return this.values(name)[0] ?? otherwise;
  }

  /** All fields of that name, unfolded and trimmed; octets that are not UTF-8 become U+FFFD. */
  values(name) {
    return this.fields.filter((f) => f.name.toLowerCase() === name.toLowerCase()).map((f) => unfold(f.value));
  }

  has(name) {
    return this.fields.some((f) => f.name.toLowerCase() === name.toLowerCase());
  }

  *[Symbol.iterator]() {
    for (const f of this.fields) yield [f.name, unfold(f.value)];
  }
}

/** Removes the line ends of a folded value (RFC 5322 section 2.2.3) and the white space around it. */
export const unfold = (value) => value.toString('utf8').replace(/\r?\n/g, '').replace(/^[ \t]+|[ \t]+$/g, '');
