// Header fields of a message or of one of its parts. Values are strings with an
// octet in each character: a header may hold any.

const LONGEST_NAME = 128;
const MOST_PARAMS = 100;

/** Removes white space from both ends. A regular expression would take quadratic time. */
export function trim(text) {
  let from = 0, to = text.length;
  while (from < to && blank(text.charCodeAt(from))) from++;
  while (to > from && blank(text.charCodeAt(to - 1))) to--;
  return text.slice(from, to);
}

const blank = (c) => c === 32 || (c >= 9 && c <= 13);

/** Lower case of ASCII alone: another octet may be half of a character. */
export const lower = (text) => text.replace(/[A-Z]+/g, (s) => s.toLowerCase());

export const bytes = (text) => Buffer.from(text, 'latin1');

/** Splits a field's first line into [name in lower case, rest]; null if it is none. White space before the colon is obsolete syntax (RFC 5322 section 4.5). */
export function fieldOf(text) {
  const colon = text.indexOf(':');
  if (colon <= 0 || colon > LONGEST_NAME) return null;
  const name = text.slice(0, colon).replace(/[ \t]{1,128}$/, '');
  return /^[!-~]+$/.test(name) ? [name.toLowerCase(), text.slice(colon + 1)] : null;
}

/** Whether it is a token (RFC 2045 section 5.1). */
export const token = (text) => text.length <= 256 && /^[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+$/.test(text);

/** The value of a parameter; '' for none. */
export const param = (params, name) => params.find((p) => p.name === name)?.value.toString('latin1') ?? '';

/**
 * Reads `value; name=value; …` (RFC 2045 section 5.1, RFC 2183) into [value,
 * params], value and names in lower case. RFC 2231's forms stay as they stand.
 */
export function parseParams(field) {
  if (field === undefined) return ['', []];
  let s = stripComments(field);
  let end = semicolon(s);
  const value = lower(trim(s.slice(0, end))), params = [];
  while (end < s.length && params.length < MOST_PARAMS) {
    s = s.slice(end + 1);
    const equals = s.indexOf('=');
    if (equals < 0) break;
    let name = s.slice(0, equals);
    name = lower(trim(name.slice(name.lastIndexOf(';') + 1)));
    s = s.slice(equals + 1).replace(/^[ \t]+/, '');
    let text;
    if (s.startsWith('"')) {
      const [content, length] = quoted(s, 0);
      text = content;
      s = s.slice(length);
      end = semicolon(s);
    } else {
      end = semicolon(s);
      text = trim(s.slice(0, end));
    }
    if (token(name)) params.push({ name, value: bytes(text) });
  }
  return [value, params];
}

const semicolon = (s) => (s.indexOf(';') < 0 ? s.length : s.indexOf(';'));

/** Reads a quoted-string that begins at `from`: [content, index behind it]. A missing quote at the end is forgiven. */
export function quoted(s, from) {
  let out = '';
  for (let i = from + 1; i < s.length; i++) {
    if (s[i] === '"') return [out, i + 1];
    if (s[i] === '\\' && i + 1 < s.length) i++;
    out += s[i];
  }
  return [out, s.length];
}

/** Reads a comment that begins at `from` (RFC 5322 section 3.2.2): [content, index behind it]. */
export function comment(s, from) {
  let out = '', depth = 0;
  for (let i = from; i < s.length; i++) {
    const c = s[i];
    if (c === '\\' && i + 1 < s.length) {
      out += s[++i];
      continue;
    }
    if (c === '(' && ++depth === 1) continue;
    if (c === ')' && --depth === 0) return [out, i + 1];
    out += c;
  }
  return [out, s.length];
}

/** Puts a space in the place of each comment outside of quotes. */
export function stripComments(s) {
  if (!s.includes('(')) return s;
  let out = '';
  for (let i = 0; i < s.length;) {
    if (s[i] === '(') {
      [, i] = comment(s, i);
      out += ' ';
    } else if (s[i] === '"') {
      const [, end] = quoted(s, i);
      out += s.slice(i, end);
      i = end;
    } else {
      out += s[i++];
    }
  }
  return out;
}
