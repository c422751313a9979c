// A message is rendered once, when it is stored: the header's essence, the MIME
// structure with its offsets, a preview. It never fails on malformed mail.
import { Parser } from './parser.js';

/**
 * Renders a message that is written to it, in bounded memory (some MiB for any
 * size):
 *
 *   const renderer = new Renderer();
 *   for await (const octets of message.open()) renderer.write(octets);
 *   const { summary, structure, preview, headerLength, size } = renderer.end();
 */
export class Renderer {
  #parser = new Parser();
  #reading = this.#parser.message();

  constructor() {
    this.#reading.next();
  }

  write(octets) {
    if (octets.length === 0) return;
    this.#parser.scanner.feed(octets);
    this.#reading.next();
  }

  /**
   * What was found, once: summary and structure as Summary and Part in the contract,
   * preview, headerLength (with the final empty line), size in octets. Offsets count
   * from the first octet that was written.
   */
  end() {
    this.#parser.scanner.finish();
    return new Rendered(this.#reading.next().value);
  }
}

/** Renders a message in memory. */
export function render(octets) {
  const renderer = new Renderer();
  renderer.write(octets);
  return renderer.end();
}

// Octets in JSON are a string that begins so, an octet in each character; no text
// of a rendering does.
const OCTETS = '\0';

/** What Renderer found. */
export class Rendered {
  constructor({ summary, structure, preview, headerLength, size }) {
    Object.assign(this, { summary, structure, preview, headerLength, size });
  }

  /** As text, to be kept beside the message. */
  pack() {
    return JSON.stringify({ ...this }, function replace(name, value) {
      // JSON asks a Buffer for its own form before it asks here.
      return Buffer.isBuffer(this[name]) ? OCTETS + this[name].latin1Slice() : value;
    });
  }

  static unpack(text) {
    return new Rendered(JSON.parse(text, (_, value) => (
      typeof value === 'string' && value.startsWith(OCTETS) ? Buffer.from(value.slice(1), 'latin1') : value)));
  }
}
