// The configuration of a plugin: an object of attributes and blocks that is the
// schema, the defaults and the documentation of its HCL block. It does not read
// HCL: the core does, and checks it against the schema before the plugin starts.
//
//   static config = {
//     forbid: attribute('list(string)', { doc: 'Words that no subject may have.' }),
//     code:   attribute('int', { default: 550, doc: 'Code of the refusal.' }),
//     wait:   attribute('duration', { default: '2m' }),
//   };
//
// Types: string, bool, int, number, duration (a string such as "2m" in HCL,
// milliseconds in the plugin), size ("25MB", octets), list(T) and map(T) of them.

const SEMANTICS = ['', 'path', 'address', 'cidr', 'hostport', 'regexp'];

/**
 * A complaint about the operator's block, shown at the line of the attribute that
 * path leads to: new Mistake('an empty word', ['forbid', 1]). Steps are names of
 * attributes and blocks, and indexes of list elements and repeated blocks; [] is
 * the block itself. detail says what to write instead. A warning does not keep the
 * plugin from starting.
 */
export class Mistake extends Error {
  constructor(summary, path = [], { detail = '', warning = false } = {}) {
    super(summary);
    Object.assign(this, { name: 'Mistake', path, detail, warning });
  }

  /** "words[1]: an empty word" */
  toString() {
    const where = this.path.map((step, i) => (typeof step === 'number' ? `[${step}]` : (i ? '.' : '') + step)).join('');
    return where ? `${where}: ${this.message}` : this.message;
  }

  /** The contract's form. */
  diagnostic() {
    return {
      severity: this.warning ? 'WARNING' : 'ERROR', summary: this.message, detail: this.detail,
      path: this.path.map((s) => (typeof s === 'number' ? { step: 'index', index: s } : { step: 'name', name: s })),
    };
  }
}

/**
 * An attribute. Without a default the operator must write it, unless it is
 * optional: it is null then. default is as HCL has it ('2m'); example is HCL;
 * semantic refines a string (path, address, cidr, hostport, regexp) and is checked
 * offline; sensitive values are never printed; live ones may change without a new
 * process.
 */
export function attribute(type, options = {}) {
  const { semantic = '', optional = false, ...rest } = options;
  if (!SEMANTICS.includes(semantic)) throw new TypeError(`unknown semantic '${semantic}': one of ${SEMANTICS.slice(1).join(', ')}`);
  for (const name of Object.keys(rest)) {
    if (!['default', 'doc', 'example', 'oneOf', 'sensitive', 'live'].includes(name)) throw new TypeError(`an attribute has no '${name}'`);
  }
  const a = { what: 'attribute', type, semantic, required: !optional && rest.default === undefined, ...rest };
  cty(type);
  if (rest.default !== undefined) decodeValue(type, rest.default);
  return a;
}

/**
 * A nested block of fields, at least min and at most max times (0: any number).
 * With max 1 it is an object, or null; else a list.
 */
export function block(fields, { doc = '', min = 0, max = 0 } = {}) {
  return { what: 'block', fields, doc, min, max };
}

/** A field of a nested block that is a label of it: a string. */
export const label = () => ({ what: 'label' });

const SIMPLE = { string: 'string', duration: 'string', size: 'string', bool: 'bool', int: 'number', number: 'number' };

/** [collection, element type] of "list(string)". */
function collection(type) {
  const m = /^(list|map)\((.+)\)$/.exec(type);
  return m ? [m[1], m[2]] : [null, type];
}

/** The HCL type, as cty JSON. */
function cty(type) {
  const [kind, inner] = collection(type);
  if (kind) return [kind, cty(inner)];
  if (!Object.hasOwn(SIMPLE, type)) throw new TypeError(`a config cannot have a '${type}': ${Object.keys(SIMPLE).join(', ')}, list(…), map(…)`);
  return SIMPLE[type];
}

function semanticOf({ type, semantic }) {
  const simple = type.replace(/^(?:(?:list|map)\()+|\)+$/g, '');
  return semantic || (['duration', 'size'].includes(simple) ? simple : '');
}

/** The contract's Schema of a config; null makes the empty one. */
export function schemaOf(config) {
  return { block: blockOf(config ?? {}, '').block };
}

function blockOf(fields, doc) {
  const out = { attributes: [], blocks: [], doc }, labels = [];
  for (const [name, f] of Object.entries(fields)) {
    switch (f?.what) {
      case 'label':
        labels.push(name);
        break;
      case 'block':
        out.blocks.push({ name, min: f.min, max: f.max, ...blockOf(f.fields, f.doc) });
        break;
      case 'attribute':
        out.attributes.push({
          name, type: json(cty(f.type)), required: f.required, doc: f.doc ?? '', example: f.example ?? '', sensitive: f.sensitive ?? false,
          semantic: semanticOf(f), oneOf: f.oneOf ?? [], liveReload: f.live ?? false,
          defaultJson: f.default === undefined ? Buffer.alloc(0) : json(f.default),
        });
        break;
      default:
        throw new TypeError(`config.${name} is none of attribute(…), block(…), label()`);
    }
  }
  return { block: out, labels };
}

const json = (value) => Buffer.from(JSON.stringify(value));

/**
 * Makes a config of Configure's JSON and lets validate look at it: { value,
 * mistakes }. What is null or absent has its default.
 */
export function decode(config, text, validate = () => []) {
  const mistakes = [];
  const value = decodeBlock(config ?? {}, JSON.parse(text.length ? text.toString() : '{}'), [], mistakes);
  if (mistakes.length === 0) {
    try {
      mistakes.push(...(validate(value) ?? []));
    } catch (e) {
      if (!(e instanceof Mistake)) throw e;
      mistakes.push(e);
    }
  }
  return { value, mistakes };
}

function decodeBlock(fields, raw, path, mistakes) {
  const out = {};
  const attempt = (here, make) => {
    try {
      return make();
    } catch (e) {
      mistakes.push(new Mistake(e.message, here));
      return null;
    }
  };
  for (const [name, f] of Object.entries(fields)) {
    const here = [...path, name];
    const got = raw[name] ?? null;
    if (f.what === 'label') {
      out[name] = String(got);
    } else if (f.what === 'block' && f.max !== 1) {
      out[name] = (got ?? []).map((one, i) => decodeBlock(f.fields, one, [...here, i], mistakes));
      if (out[name].length < f.min) mistakes.push(new Mistake(`must be there ${f.min} times`, here));
    } else if (f.what === 'block') {
      out[name] = got && decodeBlock(f.fields, got, here, mistakes);
      if (!got && f.min) mistakes.push(new Mistake('the block must be there', here));
    } else if (got !== null || f.default !== undefined) {
      out[name] = attempt(here, () => decodeValue(f.type, got ?? f.default));
    } else {
      out[name] = null;
      if (f.required) mistakes.push(new Mistake('must be there', here));
    }
  }
  return out;
}

function decodeValue(type, raw) {
  const [kind, inner] = collection(type);
  if (kind === 'list') {
    if (!Array.isArray(raw)) throw new TypeError(`${JSON.stringify(raw)} is not a list`);
    return raw.map((one) => decodeValue(inner, one));
  }
  if (kind === 'map') return Object.fromEntries(Object.entries(raw).map(([k, v]) => [k, decodeValue(inner, v)]));
  if (type === 'duration') return parseDuration(raw);
  if (type === 'size') return parseSize(raw);
  if (type === 'int' && !Number.isSafeInteger(raw)) throw new TypeError(`${JSON.stringify(raw)} is not a whole number`);
  const want = { string: 'string', bool: 'boolean', int: 'number', number: 'number' }[type];
  if (typeof raw !== want) throw new TypeError(`${JSON.stringify(raw)} is not a ${type}`);
  return raw;
}

const MS = { w: 604_800_000, d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 1e-3, 'µs': 1e-3, ns: 1e-6 };

/** Reads "90s", "2m", "1h30m", "5d", "1w" as milliseconds; a day has 24 hours. */
export function parseDuration(text) {
  const t = String(text).trim();
  if (t === '0') return 0;
  if (!/^(?:(?:\d+(?:\.\d*)?|\.\d+)(?:w|d|h|ms|m|us|µs|ns|s))+$/.test(t)) {
    throw new TypeError(`"${t}" is not a duration: write a number with s, m, h or d, such as "2m"`);
  }
  let sum = 0;
  for (const [, n, unit] of t.matchAll(/([\d.]+)([a-zµ]+)/g)) sum += Number(n) * MS[unit];
  return sum;
}

/** Reads "25MB", "64KiB", "1000" as octets; units are powers of 1024. */
export function parseSize(text) {
  const m = /^(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(?:I?B)?$/i.exec(String(text).trim());
  if (!m) throw new TypeError(`"${text}" is not a size: write a number with KB, MB or GB, such as "25MB"`);
  return Math.floor(Number(m[1]) * 1024 ** ' KMGT'.indexOf(m[2].toUpperCase() || ' '));
}
