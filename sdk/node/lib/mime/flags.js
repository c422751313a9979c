// What SetFlagsRequest says of flags: a bit set of system flags, and keywords.
import { Failure } from '../fail.js';

/** The bits of the columns, as Flag in the contract. */
export const SEEN = 1, ANSWERED = 2, FLAGGED = 4, DELETED = 8, DRAFT = 16;

const SYSTEM = new Map([['\\seen', SEEN], ['\\answered', ANSWERED], ['\\flagged', FLAGGED], ['\\deleted', DELETED], ['\\draft', DRAFT]]);
const LONGEST_KEYWORD = 255;
/** The most keywords that one message carries. */
export const MOST_KEYWORDS = 128;
// An atom of RFC 9051 section 9.
const ATOM = /^[!#$&'+-[^-z|}~]+$/;

/**
 * Splits flags into { bits, keywords }, each keyword once, spelled as it came
 * first. INVALID for an unknown system flag, for a keyword that is no atom, and for
 * more than MOST_KEYWORDS.
 */
export function parseFlags(flags) {
  let bits = 0;
  const keywords = [];
  for (const flag of flags) {
    const bit = SYSTEM.get(flag.toLowerCase());
    if (bit) {
      bits |= bit;
      continue;
    }
    if (flag.length > LONGEST_KEYWORD || !ATOM.test(flag)) {
      throw new Failure('INVALID', `${JSON.stringify(flag.slice(0, 40))} is neither a system flag nor a keyword`);
    }
    if (!hasKeyword(keywords, flag)) keywords.push(flag);
  }
  return { bits, keywords: few(keywords) };
}

/** Whether keyword is among keywords, compared without case. */
export function hasKeyword(keywords, keyword) {
  const low = keyword.toLowerCase();
  return keywords.some((k) => k.toLowerCase() === low);
}

/**
 * Does a SetFlags operation ('ADD', 'REMOVE' or 'REPLACE') on one message's flags,
 * both as parseFlags has them. It returns the new ones, or null if they are the
 * same: the message then gets no MODSEQ. INVALID for more than MOST_KEYWORDS.
 */
export function applyFlags(op, old, change) {
  let { bits, keywords } = old;
  if (op === 'ADD') {
    bits |= change.bits;
    keywords = [...keywords, ...change.keywords.filter((k) => !hasKeyword(old.keywords, k))];
  } else if (op === 'REMOVE') {
    bits &= ~change.bits;
    keywords = keywords.filter((k) => !hasKeyword(change.keywords, k));
  } else {
    bits = change.bits;
    keywords = change.keywords.map((k) => old.keywords.find((o) => hasKeyword([o], k)) ?? k);
  }
  const same = bits === old.bits && keywords.length === old.keywords.length && keywords.every((k) => old.keywords.includes(k));
  return same ? null : { bits, keywords: few(keywords) };
}

function few(keywords) {
  if (keywords.length > MOST_KEYWORDS) throw new Failure('INVALID', `more than ${MOST_KEYWORDS} keywords on one message`);
  return keywords;
}
