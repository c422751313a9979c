// The first words of a message's text (RFC 8970 section 3.1).
import { Decoder } from './decode.js';

const LONGEST = 200; // characters: RFC 8970 section 3.1

/** The raw beginning of a text. */
export class Sample {
  #pieces = [];
  #room;

  constructor(part, most) {
    this.part = part;
    this.#room = most;
  }

  add(octets) {
    if (this.#room <= 0) return;
    const piece = octets.subarray(0, this.#room);
    this.#room -= piece.length;
    this.#pieces.push(Buffer.from(piece)); // the line's memory is used again
  }

  text() {
    const decoder = new Decoder(this.part);
    return decoder.write(Buffer.concat(this.#pieces)) + decoder.end();
  }
}

/** The beginning of the plain text or, if there is none, of the HTML without its tags. */
export function preview(text, html) {
  const plain = text?.text() ?? '';
  if (plain) return clip(plain);
  return html ? clip(stripTags(html.text())) : '';
}

/** Collapses white space and control characters, and cuts. */
function clip(text) {
  let out = '', n = 0, space = false;
  for (const c of text) {
    if (c === '\ufffd' || /[\s\p{Cc}\ufeff]/u.test(c)) {
      space = n > 0;
      continue;
    }
    if (space) {
      if (++n >= LONGEST) break;
      out += ' ';
      space = false;
    }
    out += c;
    if (++n >= LONGEST) break;
  }
  return out;
}

const HIDDEN = /^<(style|script|head|title)/;
const ENTITIES = { '&nbsp;': ' ', '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#39;': "'", '&amp;': '&' };

/** Leaves the text of HTML, roughly: a preview is not a rendering. */
function stripTags(html) {
  const low = html.replace(/[A-Z]+/g, (s) => s.toLowerCase());
  let out = '';
  for (let at = 0; at < html.length;) {
    const open = html.indexOf('<', at);
    if (open < 0) {
      out += html.slice(at);
      break;
    }
    out += `${html.slice(at, open)} `;
    const hidden = HIDDEN.exec(low.slice(open, open + 8));
    let end = open;
    if (hidden) end = low.indexOf(`</${hidden[1]}`, open);
    if (end < 0) break;
    end = html.indexOf('>', end);
    if (end < 0) break;
    at = end + 1;
  }
  return out.replace(/&(?:nbsp|lt|gt|quot|#39|amp);/g, (e) => ENTITIES[e]);
}
