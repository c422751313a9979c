// Lists of addresses (RFC 5322 section 3.4, with the obsolete syntax of section
// 4.4). Whatever is wrong, the reader goes on at the next comma.
import { bytes, comment, quoted } from './header.js';

/** The contract's MailAddresses of a field's value, at most so many. */
export function parseAddresses(value, most) {
  return value === undefined ? [] : new AddressReader(value, most).read();
}

const WORD_ENDS = / |\t|\r|\n|[("<>@,;:[]/g;

class AddressReader {
  #s; #most;
  #at = 0;
  #comment = ''; // the last one passed
  #inGroup = false;
  #out = [];

  constructor(s, most) {
    this.#s = s;
    this.#most = most;
  }

  read() {
    while (this.#out.length < this.#most && this.#address());
    if (this.#inGroup && this.#out.length < this.#most) this.#emit('', '', '', 'END');
    return this.#out;
  }

  #emit(name, localPart, domain, group = 'NONE') {
    this.#out.push({ name: bytes(name), localPart: bytes(localPart), domain: bytes(domain), group });
  }

  /** Reads one mailbox, or a group's beginning or end; false at the end. */
  #address() {
    this.#comment = '';
    const words = this.#words();
    if (this.#at >= this.#s.length) {
      if (words.length > 0) this.#bare(words);
      return false;
    }
    const c = this.#s[this.#at++];
    if (c === ':') {
      if (this.#inGroup) this.#emit('', '', '', 'END');
      this.#inGroup = true;
      this.#emit('', words.join(' '), '', 'START');
    } else if (c === '<') {
      this.#angle(words.join(' '));
    } else if (c === '@') {
      const domain = this.#words().join('');
      this.#emit(this.#comment, words.join(''), domain);
      this.#separator();
    } else if (c === ',' || c === ';') {
      if (words.length > 0) this.#bare(words);
      if (c === ';' && this.#inGroup) {
        this.#inGroup = false;
        this.#emit('', '', '', 'END');
      }
    }
    return true;
  }

  /** A local-part without a domain. */
  #bare(words) {
    this.#emit(this.#comment, words.join(' '), '');
  }

  /** Reads an angle-addr behind its "<"; a route is passed over (RFC 5322 section 4.4). */
  #angle(name) {
    let words = this.#words(), domain = null;
    while (this.#at < this.#s.length) {
      const c = this.#s[this.#at];
      if (c === '@') {
        this.#at++;
        domain = this.#words().join('');
        continue;
      }
      if (c === ':') { // what came before was a route
        this.#at++;
        domain = null;
        words = this.#words();
        continue;
      }
      if (c === ',' && words.length > 0) break; // the ">" is missing
      this.#at++;
      if (c === '>') break;
      this.#words();
    }
    if (words.length > 0 || domain !== null || name) {
      if (!name) {
        this.#words();
        name = this.#comment;
      }
      this.#emit(name, words.join(''), domain ?? '');
    }
    this.#separator();
  }

  /** Passes everything up to the comma or semicolon behind a mailbox. */
  #separator() {
    while (this.#at < this.#s.length) {
      if (this.#s[this.#at] === ';') return; // #address ends the group
      if (this.#s[this.#at++] === ',') return;
      this.#words();
    }
  }

  /** Reads atoms, quoted strings and domain literals up to a special. */
  #words() {
    const s = this.#s, out = [];
    while (this.#at < s.length) {
      const c = s[this.#at];
      if (c === ' ' || c === '\t' || c === '\r' || c === '\n') {
        this.#at++;
      } else if (c === '(') {
        [this.#comment, this.#at] = comment(s, this.#at);
      } else if (c === '"') {
        const [text, end] = quoted(s, this.#at);
        out.push(text);
        this.#at = end;
      } else if (c === '[') {
        const close = s.indexOf(']', this.#at), end = close < 0 ? s.length : close + 1;
        out.push(s.slice(this.#at, end));
        this.#at = end;
      } else if ('<>@,;:'.includes(c)) {
        return out;
      } else {
        WORD_ENDS.lastIndex = this.#at;
        const end = WORD_ENDS.exec(s)?.index ?? s.length;
        out.push(s.slice(this.#at, end));
        this.#at = end;
      }
    }
    return out;
  }
}
