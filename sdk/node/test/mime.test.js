// What a storage has to know of mail: rendering, searching, flags, UIDs, names.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Message } from '../lib/message.js';
import {
  Rendered, Renderer, UidSet, applyFlags, compile, decodeWords, fold, mailboxName, messageIds, parentOf, parseFlags, render, threadIds,
} from '../lib/mime/index.js';

const crlf = (text) => Buffer.from(text.replaceAll('\n', '\r\n'), 'latin1');
const invalid = { name: 'Failure', kind: 'INVALID' };

/** A structure as a line per part: type, place, size, lines. */
function draw(p, depth = 0) {
  const own = `${'  '.repeat(depth)}${p.type}/${p.subtype} @${p.headerOffset}+${p.bodyOffset - p.headerOffset} size ${p.size} lines ${p.lines} ${p.encoding}\n`;
  return own + p.children.map((c) => draw(c, depth + 1)).join('');
}

const NESTED = `From: user@domain.org
Content-Type: multipart/mixed; boundary="foo
 bar"

Root prologue

--foo bar
Content-Type: text/x-myown; charset=us-ascii

hello

--foo bar
Content-Type: message/rfc822

Subject: submsg
Content-Type: multipart/alternative; boundary="sub1"

--sub1
Content-Type: text/html

<p>Hello world</p>

--sub1

Hello another world

--sub1--
Sub epilogue

--foo bar--
Root epilogue
`;

// The same cases as in the Go SDK's mime_test.go.
const STRUCTURES = {
  nested: [NESTED, `multipart/mixed @0+78 size 345 lines 27 7bit
  text/x-myown @106+48 size 7 lines 1 7bit
  message/rfc822 @174+32 size 187 lines 14 7bit
    multipart/alternative @206+73 size 114 lines 11 7bit
      text/html @287+27 size 20 lines 1 7bit
      text/plain @344+2 size 21 lines 1 7bit
`],
  empty: ['', 'text/plain @0+0 size 0 lines 0 7bit\n'],
  'header only': ['Subject: x\n', 'text/plain @0+12 size 0 lines 0 7bit\n'],
  'no header': ['\nbody\n', 'text/plain @0+2 size 6 lines 1 7bit\n'],
  'no terminator': ['Content-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n',
    'multipart/mixed @0+45 size 10 lines 3 7bit\n  text/plain @50+2 size 3 lines 1 7bit\n'],
  'no boundary': ['Content-Type: multipart/mixed\n\nx\n', 'text/plain @0+33 size 3 lines 1 7bit\n'],
  'no part': ['Content-Type: multipart/mixed; boundary=a\n\nx\n', 'text/plain @0+45 size 3 lines 1 7bit\n'],
  'garbage type': ['Content-Type: ;;;\n\nx', 'text/plain @0+21 size 1 lines 0 7bit\n'],
  digest: ['Content-Type: multipart/digest; boundary=a\n\n--a\n\nSubject: in\n\nx\n--a--\n',
    'multipart/digest @0+46 size 32 lines 6 7bit\n  message/rfc822 @51+2 size 16 lines 2 7bit\n    text/plain @53+15 size 1 lines 0 7bit\n'],
  'delimiter in header': ['Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: text/html\n--a--\n',
    'multipart/mixed @0+45 size 37 lines 3 7bit\n  text/html @50+25 size 0 lines 0 7bit\n'],
  'similar boundaries': ['Content-Type: multipart/mixed; boundary=ab\n\n--ab\nContent-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n--ab--\n',
    'multipart/mixed @0+46 size 69 lines 7 7bit\n  multipart/mixed @52+45 size 8 lines 2 7bit\n    text/plain @102+2 size 1 lines 0 7bit\n'],
};

for (const [name, [text, want]] of Object.entries(STRUCTURES)) {
  test(`structure: ${name}, in pieces of any size`, () => {
    const octets = crlf(text);
    for (const size of [1, 2, 3, 7, 1000]) {
      const renderer = new Renderer();
      for (let at = 0; at < octets.length; at += size) renderer.write(octets.subarray(at, at + size));
      const r = renderer.end();
      assert.equal(draw(r.structure), want);
      assert.equal(r.size, octets.length);
      assert.equal(r.headerLength, r.structure.bodyOffset);
    }
  });
}

test('a line of any length, and parts without end, stay within bounds', () => {
  const long = render(Buffer.from(`Subject: ${'x'.repeat(100_000)}\r\n\r\n${'y'.repeat(100_000)}\r\n--`));
  assert.equal(long.summary.subject.length, (64 << 10) - 1); // the space behind the colon was kept first
  assert.equal(draw(long.structure), 'text/plain @0+100013 size 100004 lines 1 7bit\n');
  const deep = render(Buffer.from('Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n'.repeat(300)));
  let depth = 0;
  for (let p = deep.structure; p; p = p.children[0]) depth++;
  assert.equal(depth, 65);
  const many = render(Buffer.from(`Content-Type: multipart/mixed; boundary=x\r\n\r\n${'--x\r\n\r\n\r\n'.repeat(5000)}--x--\r\n`));
  assert.equal(many.structure.children.length, 999);
});

test('summary: raw text, addresses and groups, and the moment', () => {
  const { summary: s } = render(crlf(`From: "Tom \\"T\\" Hanks" <tom@hanks.example>, nora@ryan.example (Nora)
To: friends: meg@ryan.example, <@relay.example:joe@reed.example>;, odd
Subject: =?utf-8?q?caf=C3=A9?=
 folded
Date: Thu, 15 Feb 2007 01:02:03 +0200 (EET)
Message-ID: <1@hanks.example>

x`));
  const line = (list) => list.map((a) => `${a.name}|${a.localPart}|${a.domain}${a.group === 'NONE' ? '' : ` ${a.group}`}`);
  assert.deepEqual(line(s.from), ['Tom "T" Hanks|tom|hanks.example', 'Nora|nora|ryan.example']);
  assert.deepEqual(line(s.to), ['|friends| START', '|meg|ryan.example', '|joe|reed.example', '|| END', '|odd|']);
  assert.equal(s.subject.toString(), '=?utf-8?q?caf=C3=A9?= folded');
  assert.equal(s.sentMs, 1171494123000);
  const sent = (date) => render(crlf(`Date: ${date}\n\n`)).summary.sentMs;
  assert.equal(sent('15 Feb 07 01:02 EST'), Date.UTC(2007, 1, 15, 6, 2));
  assert.equal(sent('Wed, 31 Feb 2007 00:00:00 +0000'), 0);
  assert.equal(sent('yesterday'), 0);
});

test('preview: the first text, decoded, else HTML without its tags', () => {
  const preview = (text) => render(crlf(text)).preview;
  assert.equal(preview('Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n hello =C3=A4\n  wor=\nld'), 'hello ä world');
  assert.equal(preview('Content-Type: text/html\n\n<head><title>x</title></head><STYLE>b {}</Style><p>Tom &amp; <b>Meg</b></p>'), 'Tom & Meg');
  assert.equal([...preview(`\n${'abcdef '.repeat(100)}`)].length, 200);
});

test('what was rendered can be kept as text', () => {
  const r = render(crlf(`${NESTED}\n`).subarray(0));
  assert.deepEqual(Rendered.unpack(r.pack()), r);
});

const MAILS = [
  'Subject: =?iso-8859-1?q?Gr=FC=DFe?= =?utf-8?b?IMOEw7Y=?=\nX-Empty:\n\nneedle',
  'From: nora@ryan.example\nSubject: qp\nDate: Fri, 16 Feb 2007 12:00:00 +0000\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nsoft=\nbreak and =FCber\n',
  'Subject: b64\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw4RwZmVsIHVuZCBCaXJu\nZW4=\n',
  'Content-Type: multipart/mixed; boundary=b\n\n--b\n\nfirst part\n--b\nContent-Type: application/x-zip\n\nbinarypart\n--b\nContent-Type: message/rfc822\n\nSubject: =?utf-8?q?innersubj=65ct?=\n\ninner body\n--b--\n',
  'Subject: koi\nContent-Type: text/plain; charset=koi8-r\n\n\xf0\xd2\xc9\xd7\xc5\xd4\n',
  'Subject: unknown\nContent-Type: text/plain; charset=x-unknown\n\nstill found\n',
].map(crlf);

const candidate = (octets, i) => {
  const r = render(octets);
  return {
    uid: i + 1, bits: i, keywords: i === 2 ? ['$Work'] : [], modseq: 10 + i, size: octets.length, receivedMs: 1000 * i, savedMs: 1, messageId: `M${i}`,
    threadId: 'T1', summary: () => r.summary, structure: () => r.structure, header: () => octets.subarray(0, r.headerLength),
    message: () => new Message({ size: octets.length, where: 'inline', inline: octets }),
  };
};

const criterion = (test, value) => ({ test, [test]: value });
const not = (c) => criterion('not', c);
const all = (...criteria) => criterion('allOf', { criteria });
const any = (...criteria) => criterion('anyOf', { criteria });
const header = (name, value) => criterion('header', { name, value });

async function search(c, mails = MAILS.map(candidate)) {
  const matcher = compile(c), out = [];
  for (const m of mails) if (await matcher.matches(m)) out.push(m.uid);
  return out;
}

const SEARCHES = [
  ['nothing asked', null, [1, 2, 3, 4, 5, 6]], ['encoded words', header('subject', 'GRÜSSE äö'.replace('SS', 'ß')), [1]],
  ['not the raw form', header('Subject', 'iso-8859'), []], ['a field that exists', header('x-empty', ''), [1]],
  ['soft break', criterion('body', 'SOFTbreak'), [2]], ['iso-8859-1', criterion('body', 'ÜBER'), [2]],
  ['base64 over a line end', criterion('body', 'äpfel und birnen'), [3]], ['in a part', criterion('body', 'first part'), [4]],
  ['delimiters are no text', criterion('body', '--b'), []], ['binary parts are no text', criterion('body', 'binarypart'), []],
  ['header of a message within', criterion('body', 'innersubject'), [4]], ['its body', criterion('text', 'inner body'), [4]],
  ['koi8-r', criterion('body', 'Привет'), [5]], ['an unknown charset', criterion('body', 'still'), [6]],
  ['header as text', criterion('text', 'from: nora@'), [2]], ['header is no body', criterion('body', 'nora@'), []],
  ['flags', criterion('flag', '\\seen'), [2, 4, 6]], ['keyword', criterion('flag', '$work'), [3]],
  ['sizes', all(criterion('larger', 60), criterion('smaller', 100)), MAILS.flatMap((m, i) => (m.length > 60 && m.length < 100 ? [i + 1] : []))],
  ['received', criterion('received', { fromMs: 1000, toMs: 3000 }), [2, 3]], ['sent', criterion('sent', { fromMs: 0, toMs: 0 }), [2]],
  ['saved', criterion('saved', { fromMs: 1, toMs: 2 }), [1, 2, 3, 4, 5, 6]], ['modseq', criterion('modseqAtLeast', 14), [5, 6]],
  ['uids', criterion('uids', { ranges: [{ first: 5, last: 0 }, { first: 2, last: 2 }] }), [2, 5, 6]],
  ['no uids', criterion('uids', { ranges: [] }), []], ['ids', all(criterion('messageId', 'M3'), criterion('threadId', 'T1')), [4]],
  ['any of nothing', any(), []], ['all of nothing', all(), [1, 2, 3, 4, 5, 6]],
  ['nested', all(not(any(criterion('flag', '\\Seen'), header('subject', 'b64'))), criterion('everything', true)), [1, 5]],
];
for (const [name, c, want] of SEARCHES) test(`search: ${name}`, async () => assert.deepEqual(await search(c), want));

test('a search opens only what it must, and a long text a piece at a time', async (t) => {
  const closed = { ...candidate(MAILS[0], 0), message: () => assert.fail('it was opened') };
  assert.deepEqual(await search(all(criterion('body', 'needle'), criterion('flag', '\\Seen')), [closed]), []);
  const folder = mkdtempSync(path.join(tmpdir(), 'mime'));
  t.after(() => rmSync(folder, { recursive: true }));
  const octets = crlf(`Content-Type: text/plain; charset=utf-8\n\n${'x'.repeat((64 << 10) - 2)}h\xc3\xa4ystack\n`), file = path.join(folder, 'm.eml');
  writeFileSync(file, octets);
  const long = { ...candidate(octets, 0), message: () => Message.fromFile(file, octets.length) };
  assert.deepEqual(await search(criterion('body', 'hÄystack'), [long]), [1]);
  assert.deepEqual(await search(criterion('body', 'häystacks'), [long]), []);
});

test('a search that is too large, or lacks a test, is INVALID', () => {
  let deep = criterion('everything', true);
  for (let i = 0; i < 101; i++) deep = not(deep);
  for (const c of [deep, {}, not(null), any({}), all(...Array(10_000).fill(criterion('everything', true))), criterion('flag', 'two words')]) {
    assert.throws(() => compile(c), invalid);
  }
});

test('flags: a bit set and keywords, without case, the first spelling stays', () => {
  assert.deepEqual(parseFlags(['\\SEEN', '$Work', '\\draft', '$work']), { bits: 17, keywords: ['$Work'] });
  for (const wrong of ['', '\\Recent', 'two words', 'paren)', 'ctl\x01', 'ünï', 'x'.repeat(256)]) assert.throws(() => parseFlags([wrong]), invalid);
  const old = { bits: 1, keywords: ['Work'] };
  assert.deepEqual(applyFlags('ADD', old, parseFlags(['WORK', 'more', '\\Flagged'])), { bits: 5, keywords: ['Work', 'more'] });
  assert.deepEqual(applyFlags('REMOVE', old, parseFlags(['wORK', 'other'])), { bits: 1, keywords: [] });
  assert.deepEqual(applyFlags('REPLACE', old, parseFlags(['\\Answered'])), { bits: 2, keywords: [] });
  assert.equal(applyFlags('REPLACE', old, parseFlags(['work', '\\Seen'])), null);
  assert.equal(applyFlags('ADD', old, parseFlags(['\\Seen'])), null);
  const many = parseFlags(Array.from({ length: 128 }, (_, i) => `k${i}`));
  assert.throws(() => applyFlags('ADD', old, many), invalid);
});

test('sets of UIDs', () => {
  const set = UidSet.of([{ first: 7, last: 9 }, { first: 0, last: 2 }, { first: 3, last: 3 }, { first: 9, last: 8 }, { first: 100, last: 0 }]);
  assert.deepEqual(set.toRanges(), [{ first: 1, last: 3 }, { first: 7, last: 9 }, { first: 100, last: 4294967295 }]);
  assert.deepEqual([0, 1, 3, 4, 6, 7, 9, 10, 99, 100, 4294967295].map((uid) => set.has(uid)),
    [false, true, true, false, false, true, true, false, false, true, true]);
  assert.ok(UidSet.of([]).has(1));
  assert.deepEqual([...UidSet.from([5, 3, 4, 9])], [3, 4, 5, 9]);
  assert.deepEqual(UidSet.from([1, 2]).union(UidSet.from([3, 8])).toRanges(), [{ first: 1, last: 3 }, { first: 8, last: 8 }]);
  assert.deepEqual([...set.intersection(UidSet.of([{ first: 3, last: 7 }]))], [3, 7]);
  assert.equal(UidSet.from([5, 3, 4, 9]).size, 4);
});

test('mailbox names', () => {
  assert.equal(mailboxName('inBox/Gro\u0308ße'), 'INBOX/Größe');
  for (const wrong of ['', '/', 'a/', '/a', 'a//b', 'a\0b', 'a\nb', '\ud800', 'x'.repeat(1025)]) assert.throws(() => mailboxName(wrong), invalid);
  assert.equal(mailboxName('..'), '..');
  assert.deepEqual(['a/b/c', 'a'].map(parentOf), ['a/b', '']);
});

test('ids and threads', () => {
  assert.deepEqual(messageIds('<1@x> (said) <2\r\n @x> 3 <>'), ['1@x', '2@x']);
  const { summary } = render(crlf('Message-ID: <4@x>\nReferences: <1@x> <2@x>\nIn-Reply-To: <3@x>\n\n'));
  assert.deepEqual(threadIds(summary), ['4@x', '3@x', '2@x', '1@x']);
});

test('encoded words', () => {
  assert.equal(decodeWords('a =?UTF-8?Q?=C3=A4_b?=\t =?iso-8859-1*de?B?/A==?= c'), 'a ä bü c');
  assert.equal(decodeWords('=?utf-8?x?bad?= =?'), '=?utf-8?x?bad?= =?');
});

test('case: what Unicode folds to the same is the same', () => {
  assert.equal(fold('ΣΑΣ ς'), fold('σας Σ'));
  assert.equal(fold('K'), 'k');
  assert.notEqual(fold('ß'), fold('ss'));
  for (let c = 0x80; c < 0x3000; c++) {
    const text = String.fromCodePoint(c);
    for (const other of [text.toLowerCase(), text.toUpperCase()]) {
      // JavaScript's regular expressions know the simple folding.
      if (new RegExp(`^${other}$`, 'iu').test(text)) assert.equal(fold(other), fold(text), `U+${c.toString(16)}`);
    }
  }
});
