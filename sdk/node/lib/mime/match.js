// Searches: a Criterion of the contract, compiled once and asked of each message.
import { Failure } from '../fail.js';
import { Decoder, decodeWords } from './decode.js';
import { hasKeyword, parseFlags } from './flags.js';
import { fold } from './fold.js';
import { trim } from './header.js';
import { UidSet } from './uids.js';

// What a search may have: tests in all, and how deep they nest.
const MOST_TESTS = 10_000;
const DEEPEST = 100;
const PIECE = 64 << 10;
/** How much of an embedded message's header is searched, in octets. */
const LONGEST_HEADER = 256 << 10;

// The costs by which the tests of a list are ordered.
const COLUMNS = 0, SUMMARY = 1, HEADER = 2, BODY = 3;

/**
 * Compiles a criterion; null finds everything. INVALID for one that is malformed or
 * too large. The Matcher may be used by many searches at once.
 */
export function compile(criterion) {
  return new Matcher(compiled(criterion, 0, { tests: 0 }));
}

/** A compiled criterion. */
class Matcher {
  #test;

  constructor({ test }) {
    this.#test = test;
  }

  /**
   * Whether a message is found. Its candidate has the columns
   *
   *   uid, bits, keywords, modseq, size, receivedMs, savedMs, messageId, threadId
   *
   * and the methods summary(), structure() (as they were rendered), header() (the
   * raw header, a Buffer) and message() (a Message), each of which may return a
   * promise and is called only where what is cheaper does not decide.
   */
  async matches(candidate) {
    return this.#test(new Look(candidate));
  }
}

/** Keeps what was read of one message. */
class Look {
  #fields = null;

  constructor(candidate) {
    this.candidate = candidate;
  }

  async fields() {
    this.#fields ??= foldedFields(await this.candidate.header());
    return this.#fields;
  }
}

function compiled(c, depth, count) {
  if (++count.tests > MOST_TESTS || depth > DEEPEST) {
    throw new Failure('INVALID', `the search has more than ${MOST_TESTS} tests or nests deeper than ${DEEPEST}`);
  }
  const columns = (test) => ({ cost: COLUMNS, test: async ({ candidate }) => test(candidate) });
  if (c === null || c === undefined) {
    if (depth > 0) throw new Failure('INVALID', 'a search criterion without a test');
    return columns(() => true);
  }
  const value = c[c.test];
  switch (c.test) {
    case undefined: throw new Failure('INVALID', 'a search criterion without a test');
    case 'everything': return columns(() => value);
    case 'allOf': return list(value.criteria, false, depth, count);
    case 'anyOf': return list(value.criteria, true, depth, count);
    case 'not': {
      const { cost, test } = compiled(value, depth + 1, count);
      return { cost, test: async (look) => !(await test(look)) };
    }
    case 'header': return { cost: HEADER, test: headerTest(value) };
    case 'body': return { cost: BODY, test: textTest(value, false) };
    case 'text': return { cost: BODY, test: textTest(value, true) };
    case 'larger': return columns((m) => m.size > value);
    case 'smaller': return columns((m) => m.size < value);
    case 'received': return columns((m) => within(value, m.receivedMs));
    case 'saved': return columns((m) => within(value, m.savedMs));
    case 'sent': return { cost: SUMMARY, test: async ({ candidate }) => {
      const { sentMs } = await candidate.summary();
      return sentMs !== 0 && within(value, sentMs);
    } };
    case 'flag': {
      const { bits, keywords } = parseFlags([value]);
      return columns((m) => (m.bits & bits) !== 0 || keywords.some((k) => hasKeyword(m.keywords, k)));
    }
    case 'modseqAtLeast': return columns((m) => m.modseq >= value);
    case 'uids': {
      const uids = value.ranges.length > 0 ? UidSet.of(value.ranges) : new UidSet();
      return columns((m) => uids.has(m.uid));
    }
    case 'messageId': return columns((m) => m.messageId === value);
    case 'threadId': return columns((m) => m.threadId === value);
    default: throw new Failure('UNSUPPORTED', `a search criterion that is not known here: ${c.test}`);
  }
}

/** The cheap tests come first. */
function list(criteria, any, depth, count) {
  const all = criteria.map((c) => compiled(c, depth + 1, count)).sort((a, b) => a.cost - b.cost);
  return {
    cost: Math.max(COLUMNS, ...all.map((t) => t.cost)),
    test: async (look) => {
      for (const { test } of all) if ((await test(look)) === any) return any;
      return !any;
    },
  };
}

const within = ({ fromMs, toMs }, ms) => (!fromMs || ms >= fromMs) && (!toMs || ms < toMs);

function headerTest({ name, value }) {
  const [wanted, needle] = [fold(name), fold(value)];
  return async (look) => (await look.fields()).some((f) => f.name === wanted && f.value.includes(needle));
}

const contains = (fields, needle) => fields.some((f) => `${f.name}: ${f.value}`.includes(needle));

function textTest(text, header) {
  const needle = fold(text);
  return async (look) => {
    if (!needle || (header && contains(await look.fields(), needle))) return true;
    const reader = await (await look.candidate.message()).reader();
    try {
      return await inPart(await look.candidate.structure(), reader, needle);
    } finally {
      await reader.close();
    }
  };
}

/** Looks in the texts of an entity and in the headers of the messages within it. */
async function inPart(part, reader, needle) {
  if (part.type === 'text') return inText(part, reader, needle);
  const [inner] = part.children;
  if (part.message && inner) {
    const length = Math.min(inner.bodyOffset - inner.headerOffset, LONGEST_HEADER);
    if (contains(foldedFields(await reader.read(inner.headerOffset, length)), needle)) return true;
  }
  for (const child of part.children) if (await inPart(child, reader, needle)) return true;
  return false;
}

/** Decodes and looks a piece at a time. */
async function inText(part, reader, needle) {
  const decoder = new Decoder(part), end = part.bodyOffset + part.size;
  let text = '';
  for (let at = part.bodyOffset; at < end;) {
    const octets = await reader.read(at, Math.min(PIECE, end - at));
    if (octets.length === 0) break;
    at += octets.length;
    text += fold(decoder.write(octets));
    if (text.includes(needle)) return true;
    text = needle.length > 1 ? text.slice(-(needle.length - 1)) : '';
  }
  return (text + fold(decoder.end())).includes(needle);
}

/** Unfolds, decodes and folds the case of every field. */
function foldedFields(header) {
  const out = [];
  let name = '', pieces = [];
  const flush = () => {
    if (name) out.push({ name: fold(name), value: fold(decodeWords(trim(pieces.join('')))) });
  };
  for (const ended of header.toString('utf8').split('\n')) {
    const line = ended.endsWith('\r') ? ended.slice(0, -1) : ended;
    if (line.startsWith(' ') || line.startsWith('\t')) {
      pieces.push(line);
      continue;
    }
    flush();
    const colon = line.indexOf(':');
    name = trim(colon < 0 ? line : line.slice(0, colon));
    pieces = [colon < 0 ? '' : line.slice(colon + 1)];
  }
  flush();
  return out;
}
