// A config is schema, defaults and documentation.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Mistake, attribute, block, label } from '../index.js';
import { decode, parseDuration, parseSize, schemaOf } from '../lib/schema.js';

const limit = { domain: label(), max: attribute('int', { default: 10, doc: 'Mails per hour.' }) };
const config = {
  words: attribute('list(string)', { doc: 'Words.', example: '["lottery"]' }),
  code: attribute('int', { default: 550 }),
  wait: attribute('duration', { default: '2m' }),
  size: attribute('size', { default: '25MB' }),
  extra: attribute('map(string)', { default: {} }),
  note: attribute('string', { optional: true, semantic: 'path', sensitive: true }),
  factor: attribute('number', { default: 1.5, live: true }),
  strict: attribute('bool', { default: false }),
  limits: block(limit, { doc: 'Limits per domain.' }),
  one: block(limit, { max: 1 }),
};

function* validate(c) {
  for (const [i, word] of c.words.entries()) if (!word) yield new Mistake('an empty word', ['words', i], { detail: 'Take it out.' });
  if (c.code === 551) yield new Mistake('an unusual code', ['code'], { warning: true });
}

const read = (value) => decode(config, Buffer.from(JSON.stringify(value)), validate);

test('it says what the config says', () => {
  const { block: b } = schemaOf(config);
  const all = (pick) => Object.fromEntries(b.attributes.map((a) => [a.name, pick(a)]));
  assert.deepEqual(all((a) => JSON.parse(a.type)), {
    words: ['list', 'string'], code: 'number', wait: 'string', size: 'string', extra: ['map', 'string'], note: 'string', factor: 'number', strict: 'bool' });
  assert.deepEqual(b.attributes.filter((a) => a.required).map((a) => a.name), ['words']);
  assert.deepEqual(b.attributes.filter((a) => a.defaultJson.length).map((a) => JSON.parse(a.defaultJson)), [550, '2m', '25MB', {}, 1.5, false]);
  assert.deepEqual(all((a) => a.semantic), { words: '', code: '', wait: 'duration', size: 'size', extra: '', note: 'path', factor: '', strict: '' });
  assert.ok(b.attributes[5].sensitive && b.attributes[6].liveReload);
  assert.deepEqual(b.blocks.map((n) => [n.name, n.min, n.max, n.labels, n.block.attributes[0].name]), [['limits', 0, 0, ['domain'], 'max'], ['one', 0, 1, ['domain'], 'max']]);
});

test('it decodes what the core sends', () => {
  const { value, mistakes } = read({
    words: ['a'], code: 553, wait: '1h30m', size: '64KiB', extra: { a: 'b' }, note: null, factor: 2, strict: true,
    limits: [{ domain: 'hanks.example', max: 3 }, { domain: 'ryan.example', max: null }], one: null,
  });
  assert.deepEqual(mistakes, []);
  assert.deepEqual(value, {
    words: ['a'], code: 553, wait: 5_400_000, size: 65536, extra: { a: 'b' }, note: null, factor: 2, strict: true,
    limits: [{ domain: 'hanks.example', max: 3 }, { domain: 'ryan.example', max: 10 }], one: null,
  });
});

test('it points at the attribute', () => {
  for (const [given, want] of [
    [{ words: ['a', ''] }, 'words[1]: an empty word'],
    [{ words: ['a'], code: 5.5 }, 'code: 5.5 is not a whole number'],
    [{ words: ['a'], wait: 'soon' }, 'wait: "soon" is not a duration: write a number with s, m, h or d, such as "2m"'],
    [{ words: ['a'], limits: [{ domain: 'x', max: 1 }, { domain: 'y', max: 1.5 }] }, 'limits[1].max: 1.5 is not a whole number'],
    [{}, 'words: must be there'],
  ]) assert.deepEqual(read(given).mistakes.map(String), [want]);
  const d = new Mistake('no', ['limits', 1, 'max'], { detail: 'Write 1.' }).diagnostic();
  assert.deepEqual(d.path.map((s) => s[s.step]), ['limits', 1, 'max']);
  assert.equal(d.detail, 'Write 1.');
  assert.equal(read({ words: ['a'], code: 551 }).mistakes[0].diagnostic().severity, 'WARNING');
});

test('it refuses what no config can have', () => {
  assert.throws(() => attribute('set(string)'), /a config cannot have a 'set/);
  assert.throws(() => attribute('string', { semantic: 'colour' }), /unknown semantic/);
  assert.throws(() => attribute('string', { defualt: 'x' }), /no 'defualt'/);
  assert.throws(() => attribute('duration', { default: 'soon' }), /not a duration/);
  assert.throws(() => schemaOf({ a: 1 }), /config\.a is none of/);
});

test('units', () => {
  for (const [text, seconds] of [['90s', 90], ['2m', 120], ['1h30m', 5400], ['5d', 432000], ['1w', 604800], ['1.5h', 5400], ['0', 0], ['250ms', 0.25]]) {
    assert.equal(parseDuration(text), seconds * 1000, text);
  }
  for (const text of ['', '2', 'm', '-2m', '2m soon', '2x']) assert.throws(() => parseDuration(text), /not a duration/, text);
  for (const [text, want] of [['25MB', 25 << 20], ['64KiB', 64 << 10], ['1000', 1000], ['1.5G', 1.5 * 2 ** 30], ['7b', 7]]) assert.equal(parseSize(text), want, text);
  for (const text of ['', 'MB', '-1', '1XB']) assert.throws(() => parseSize(text), /not a size/, text);
});
