// Content-transfer-encodings, charsets and encoded words. What is malformed is
// forgiven.
import { param } from './header.js';

/** Undoes the content-transfer-encoding and the charset of a text part's body, a piece at a time. */
export class Decoder {
  #octets; #text;

  /** part is the contract's Part. */
  constructor(part) {
    this.#octets = { base64: () => new Base64(), 'quoted-printable': () => new QuotedPrintable() }[part.encoding]?.() ?? new Plain();
    this.#text = textDecoder(param(part.params, 'charset'));
  }

  /** The text of the next octets. */
  write(octets) {
    return this.#text.decode(this.#octets.write(octets), { stream: true });
  }

  /** The text of what was left over. */
  end() {
    return this.#text.decode(this.#octets.end());
  }
}

const OWN = new Set(['', 'us-ascii', 'utf-8', 'utf8']);

/** A TextDecoder for a charset; text in one that nobody knows is read as UTF-8. */
function textDecoder(charset) {
  if (!OWN.has(charset.toLowerCase())) {
    try {
      return new TextDecoder(charset, { ignoreBOM: true });
    } catch (e) {
      if (!(e instanceof RangeError)) throw e;
    }
  }
  return new TextDecoder('utf-8', { ignoreBOM: true });
}

class Plain {
  write(octets) { return octets; }
  end() { return Buffer.alloc(0); }
}

const VALUES = new Int8Array(256).fill(-1);
for (const [i, c] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'].entries()) VALUES[c.charCodeAt(0)] = i;
const PAD = 0x3d;

/** Passes over every octet that is not of the alphabet (RFC 2045 section 6.8) and keeps what is whole. */
class Base64 {
  #bits = 0;
  #n = 0;

  write(octets) {
    const out = Buffer.allocUnsafe(Math.ceil(octets.length * 3 / 4) + 1);
    let length = 0;
    for (const c of octets) {
      if (c === PAD) this.#bits = this.#n = 0;
      if (VALUES[c] < 0) continue;
      this.#bits = ((this.#bits << 6) | VALUES[c]) & 0xffffff;
      this.#n += 6;
      if (this.#n >= 8) {
        this.#n -= 8;
        out[length++] = this.#bits >> this.#n;
      }
    }
    return out.subarray(0, length);
  }

  end() { return Buffer.alloc(0); }
}

/** RFC 2045 section 6.7; a "=" that begins nothing stays as it is. */
class QuotedPrintable {
  #rest = Buffer.alloc(0); // a "=" whose meaning is not known yet

  write(octets) { return this.#decode(octets, false); }
  end() { return this.#decode(Buffer.alloc(0), true); }

  #decode(octets, last) {
    const all = this.#rest.length > 0 ? Buffer.concat([this.#rest, octets]) : octets;
    const out = Buffer.allocUnsafe(all.length);
    let length = 0, i = 0;
    for (; i < all.length; i++) {
      if (all[i] === PAD) {
        const a = all[i + 1], b = all[i + 2];
        if (!last && (a === undefined || (a !== 10 && b === undefined))) break;
        if (a === 10) {
          i++;
          continue;
        }
        if (a === 13 && b === 10) {
          i += 2;
          continue;
        }
        if (HEX[a] >= 0 && HEX[b] >= 0) {
          out[length++] = (HEX[a] << 4) | HEX[b];
          i += 2;
          continue;
        }
      }
      out[length++] = all[i];
    }
    this.#rest = Buffer.from(all.subarray(i));
    return out.subarray(0, length);
  }
}

const HEX = new Int8Array(256).fill(-1);
for (const [i, c] of [...'0123456789abcdef'].entries()) HEX[c.charCodeAt(0)] = HEX[c.toUpperCase().charCodeAt(0)] = i;

const WORD = /=\?([^?\s]{1,100})\?([bBqQ])\?([^?\s]*)\?=/g;

/** Turns the encoded words (RFC 2047) of an unfolded value into text. What cannot be decoded stays as it stands. */
export function decodeWords(value) {
  let out = '', at = 0, afterWord = false;
  for (const m of value.matchAll(WORD)) {
    const between = value.slice(at, m.index);
    // White space between two words is not theirs (RFC 2047 section 6.2).
    if (!afterWord || /[^ \t\r\n]/.test(between)) out += between;
    // RFC 2231 section 5: a language may follow the charset.
    out += textDecoder(m[1].split('*')[0]).decode(m[2].toLowerCase() === 'b' ? Buffer.from(m[3], 'base64') : unquoted(m[3]));
    at = m.index + m[0].length;
    afterWord = true;
  }
  return out + value.slice(at);
}

/** The Q encoding of RFC 2047 section 4.2. */
const unquoted = (text) => Buffer.concat(text.split(/(=[0-9A-Fa-f]{2})/).map((s, i) => (
  i % 2 ? Buffer.from(s.slice(1), 'hex') : Buffer.from(s.replaceAll('_', ' ')))));
