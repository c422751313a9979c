// Text compared without case: Unicode's simple case folding, as i;unicode-casemap
// (RFC 5051) users expect it of a search.
const cache = new Map();

/** The form in which text is compared without case. */
export function fold(text) {
  const low = text.replace(/[A-Z]+/g, (s) => s.toLowerCase());
  return low.replace(/[^\0-\x7f]/gu, (c) => cache.get(c) ?? foldCharacter(c));
}

/** One character for all that differ in case only. String.toLowerCase alone knows of "ς" and "σ" that they differ. */
function foldCharacter(c) {
  const up = one(c.toUpperCase(), c), out = one(up.toLowerCase(), up);
  if (cache.size < 4096) cache.set(c, out);
  return out;
}

/** What becomes several characters ("ß" is "SS" in upper case) is left as it was. */
const one = (text, otherwise) => ([...text].length === 1 ? text : otherwise);
