// The structure of a message (RFC 2045, RFC 2046), read line by line as it comes.
import { parseAddresses } from './address.js';
import { parseDate } from './date.js';
import { Sample, preview } from './preview.js';
import { bytes, fieldOf, param, parseParams, stripComments, token, trim } from './header.js';
import { MORE, Scanner } from './scanner.js';

// What lies beyond these is not rendered, but the sizes and offsets of what is
// rendered stay right.
const DEEPEST = 64; // nested entities
const MOST_PARTS = 1000; // entities in all
const LONGEST_FIELD = 64 << 10; // octets kept of one field
const MOST_KEPT = 256 << 10; // octets kept of all fields
const MOST_ADDRESSES = 10_000;
const LONGEST_BOUNDARY = 256; // RFC 2046 section 5.1.1 allows 70

// Fields that are kept; true: a list of addresses.
const WANTED = new Map([
  ...['date', 'subject', 'in-reply-to', 'message-id', 'references', 'content-type', 'content-transfer-encoding', 'content-id',
    'content-description', 'content-disposition', 'content-md5', 'content-language', 'content-location'].map((n) => [n, false]),
  ...['from', 'sender', 'reply-to', 'to', 'cc', 'bcc'].map((n) => [n, true]),
]);

/**
 * Reads the message that the scanner is fed with. Its methods are generators: they
 * yield where more of the message is needed.
 */
export class Parser {
  #bounds = []; // of the multiparts around the place
  #parts = 0;
  #kept = 0;
  #addresses = 0;
  #text = null; // sample of the first text/plain
  #html = null; // and of the first text/html

  constructor() {
    this.scanner = new Scanner();
  }

  *message() {
    const [structure, fields] = yield* this.#entity(0, false);
    return {
      summary: this.#summary(fields), structure, headerLength: structure.bodyOffset, size: this.scanner.pos,
      preview: preview(this.#text, this.#html),
    };
  }

  *#next() {
    for (;;) {
      const line = this.scanner.next();
      if (line !== MORE) return line;
      yield;
    }
  }

  /** Reads one entity to the delimiter or the end of the message that ends it: [part, fields, where it ended]. */
  *#entity(depth, inDigest) {
    this.#parts++;
    const start = this.scanner.pos;
    const [fields, ended] = yield* this.#header();
    const part = described(fields, inDigest, start);
    if (ended) { // where the header should have gone on: there is no body
      part.bodyOffset = ended.start;
      if (part.type === 'multipart') plain(part);
      opaque(part);
      return [part, fields, ended];
    }
    part.bodyOffset = this.scanner.pos;
    const { lf } = this.scanner, boundary = param(part.params, 'boundary'), room = depth < DEEPEST && this.#parts < MOST_PARTS;
    let end;
    if (part.type === 'multipart' && boundary && boundary.length <= LONGEST_BOUNDARY && room) {
      end = yield* this.#multipart(part, boundary, depth);
    } else if (part.type === 'multipart') {
      plain(part);
      end = yield* this.#leaf(part);
    } else if (isMessage(part) && room) {
      const [child, inner, stop] = yield* this.#entity(depth + 1, false);
      end = stop;
      part.children = [child];
      part.message = this.#summary(inner);
    } else {
      opaque(part);
      end = yield* this.#leaf(part);
    }
    part.lines = end.lf - lf;
    if (end.start > part.bodyOffset) {
      part.size = end.start - end.prevEol - part.bodyOffset;
      if (end.prevEol > 0) part.lines--;
    }
    return [part, fields, end];
  }

  *#multipart(part, boundary, depth) {
    const level = this.#bounds.length;
    this.#bounds.push(boundary);
    let end = yield* this.#skip();
    while (end.level === level && !end.final) {
      if (this.#parts >= MOST_PARTS) {
        end = yield* this.#skip();
        continue;
      }
      const [child, , stop] = yield* this.#entity(depth + 1, part.subtype === 'digest');
      part.children.push(child);
      end = stop;
    }
    this.#bounds.length = level;
    if (end.level === level) end = yield* this.#skip(); // the epilogue
    // A multipart has one part at least (RFC 2046 section 5.1); this is text.
    if (part.children.length === 0) plain(part);
    return end;
  }

  /** Reads to the next delimiter. */
  *#skip(sample = null) {
    for (;;) {
      const line = yield* this.#next();
      if (line === null) return this.scanner.end();
      const stop = this.#delimiter(line);
      if (stop) return stop;
      sample?.add(line.data);
    }
  }

  *#leaf(part) {
    let sample = null;
    if (part.type === 'text' && part.disposition !== 'attachment') {
      if (part.subtype === 'plain' && !this.#text) sample = this.#text = new Sample(part, 4 << 10);
      if (part.subtype === 'html' && !this.#html) sample = this.#html = new Sample(part, 32 << 10);
    }
    return yield* this.#skip(sample);
  }

  /** Where the line ends a body, if it is a delimiter line of a multipart around it, the innermost first. */
  #delimiter({ cont, text, start, lf, prevEol }) {
    if (this.#bounds.length === 0 || cont || text.length < 3 || text[0] !== 0x2d || text[1] !== 0x2d) return null;
    let to = text.length;
    while (to > 2 && (text[to - 1] === 32 || text[to - 1] === 9 || text[to - 1] === 13)) to--;
    if (to - 2 > LONGEST_BOUNDARY + 2) return null;
    const found = text.latin1Slice(2, to);
    for (let level = this.#bounds.length - 1; level >= 0; level--) {
      if (!found.startsWith(this.#bounds[level])) continue;
      const rest = found.slice(this.#bounds[level].length);
      // The line end before it belongs to it (RFC 2046 section 5.1.1).
      if (rest === '' || rest === '--') return { level, final: rest !== '', start, lf, prevEol };
    }
    return null;
  }

  /**
   * Reads fields to the empty line: [a Map by name, null], or where a delimiter or
   * the end came first. Of a field that stands more than once the first one counts,
   * but lists of addresses are joined. A line that is no field is passed over.
   */
  *#header() {
    const fields = new Map();
    let name = null, pieces = [], length = 0;
    const keep = (octets) => {
      const n = Math.min(octets.length, LONGEST_FIELD - length, MOST_KEPT - this.#kept);
      if (n <= 0) return;
      this.#kept += n;
      length += n;
      pieces.push(octets.slice(0, n));
    };
    const flush = () => {
      if (name === null) return;
      const value = trim(pieces.join(''));
      if (!fields.has(name)) fields.set(name, value);
      else if (WANTED.get(name) && value) fields.set(name, `${fields.get(name)}, ${value}`);
      name = null;
    };
    for (;;) {
      const line = yield* this.#next();
      const stop = line === null ? this.scanner.end() : this.#delimiter(line);
      if (stop) {
        flush();
        return [fields, stop];
      }
      if (!line.cont && line.text.length === 0) {
        flush();
        return [fields, null];
      }
      const folded = line.cont || line.text[0] === 32 || line.text[0] === 9;
      if (folded) {
        // Unfolding removes the line end and keeps the white space (RFC 5322 section 2.2.3).
        if (name !== null) keep(line.text.latin1Slice());
        continue;
      }
      flush();
      const field = fieldOf(line.text.latin1Slice());
      if (!field || !WANTED.has(field[0])) continue;
      [name, pieces, length] = [field[0], [], 0];
      keep(field[1]);
    }
  }

  #summary(fields) {
    const value = (name) => bytes(fields.get(name) ?? '');
    const list = (name) => {
      const out = parseAddresses(fields.get(name), MOST_ADDRESSES - this.#addresses);
      this.#addresses += out.length;
      return out;
    };
    return {
      date: value('date'), subject: value('subject'), from: list('from'), sender: list('sender'), replyTo: list('reply-to'),
      to: list('to'), cc: list('cc'), bcc: list('bcc'), inReplyTo: value('in-reply-to'), messageId: value('message-id'),
      references: value('references'), sentMs: parseDate(fields.get('date') ?? '') ?? 0,
    };
  }
}

/** What the header says of the entity. */
function described(fields, inDigest, headerOffset) {
  const value = (name) => bytes(fields.get(name) ?? '');
  const part = {
    type: '', subtype: '', params: [], id: value('content-id'), description: value('content-description'), encoding: '',
    md5: value('content-md5'), disposition: '', dispositionParams: [], language: [], location: value('content-location'),
    lines: 0, headerOffset, bodyOffset: 0, size: 0, children: [], message: null,
  };
  const [type, params] = parseParams(fields.get('content-type'));
  const slash = type.indexOf('/'), main = trim(type.slice(0, Math.max(0, slash))), sub = trim(type.slice(slash + 1));
  if (slash >= 0 && token(main) && token(sub)) [part.type, part.subtype, part.params] = [main, sub, params];
  else if (!fields.has('content-type') && inDigest) [part.type, part.subtype] = ['message', 'rfc822']; // RFC 2046 section 5.1.5
  else plain(part); // RFC 2045 section 5.2
  const [encoding] = parseParams(fields.get('content-transfer-encoding'));
  part.encoding = token(encoding) ? encoding : '7bit'; // RFC 2045 section 6.1
  const [disposition, dispositionParams] = parseParams(fields.get('content-disposition'));
  if (token(disposition)) [part.disposition, part.dispositionParams] = [disposition, dispositionParams];
  part.language = stripComments(fields.get('content-language') ?? '').split(',').map(trim).filter(token);
  return part;
}

/**
 * An encoded message/rfc822 is forbidden (RFC 2046 section 5.2.1) and cannot be
 * looked into; message/global may be encoded (RFC 6532 section 3.5).
 */
const isMessage = (part) => isMail(part) && ['7bit', '8bit', 'binary'].includes(part.encoding);
const isMail = ({ type, subtype }) => type === 'message' && (subtype === 'rfc822' || subtype === 'global');

/** A message that was not looked into is shown as what it is then. */
function opaque(part) {
  if (isMail(part)) [part.type, part.subtype, part.params] = ['application', 'octet-stream', []];
}

function plain(part) {
  [part.type, part.subtype, part.params] = ['text', 'plain', [{ name: 'charset', value: bytes('us-ascii') }]];
}
