// Lines of a message that arrives in pieces, with their places in it.

/** A longer line comes in pieces of so many octets. */
const LONGEST = 32 << 10;
const CR = 13, LF = 10;

/** Told by next: there will be a line when more has been fed. */
export const MORE = Symbol('more');

/** Reads lines, or pieces of a line that is too long to be kept. */
export class Scanner {
  #octets = Buffer.alloc(0);
  #at = 0;
  #newline = -1; // a known line feed at or behind #at; -1: nobody has looked
  #ended = false;
  #eol = 0;
  #cont = false;
  #lastCR = false;
  /** Offset of the next octet. */
  pos = 0;
  /** Line feeds before pos. */
  lf = 0;

  feed(octets) {
    this.#octets = this.#at < this.#octets.length ? Buffer.concat([this.#octets.subarray(this.#at), octets]) : octets;
    this.#at = 0;
    this.#newline = -1;
  }

  finish() {
    this.#ended = true;
  }

  /**
   * The next line: data with its line end, text without; start, its offset; lf, the
   * line feeds before it; prevEol, the octets of the line end before it; cont, data
   * continues a line. MORE if it is not there yet, null at the end.
   */
  next() {
    const octets = this.#octets, at = this.#at, left = octets.length - at;
    if (this.#newline < at && left > 0) {
      const found = octets.indexOf(LF, at);
      this.#newline = found < 0 ? octets.length : found;
    }
    let end = this.#newline + 1;
    if (left === 0 || this.#newline === octets.length || end - at > LONGEST) {
      if (left >= LONGEST) end = at + LONGEST;
      else if (!this.#ended) return MORE;
      else if (left === 0) return null;
      else end = octets.length;
    }
    const data = octets.subarray(at, end), last = data[data.length - 1];
    const line = { data, text: data, start: this.pos, lf: this.lf, prevEol: this.#eol, cont: this.#cont };
    this.#at = end;
    this.pos += data.length;
    this.#eol = 0;
    if (last === LF) {
      this.lf++;
      this.#eol = data.length > 1 ? (data[data.length - 2] === CR ? 2 : 1) : (this.#cont && this.#lastCR ? 2 : 1);
      line.text = data.subarray(0, Math.max(0, data.length - this.#eol));
    }
    this.#cont = last !== LF;
    this.#lastCR = last === CR;
    return line;
  }

  /** Where a body ends that goes to the end. */
  end() {
    return { level: -1, final: false, start: this.pos, lf: this.lf, prevEol: 0 };
  }
}
