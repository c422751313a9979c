// The way into the server's log: one JSON object per line on stderr, in hclog's
// words. The core puts the instance's name to it.
import { writeSync } from 'node:fs';

/** Writes lines: log.info('posted', { status: 200, error }). */
export class Log {
  #write;

  constructor(write = (line) => stderr(line)) {
    this.#write = write;
  }

  debug(text, fields) { this.#line('debug', text, fields); }
  info(text, fields) { this.#line('info', text, fields); }
  warn(text, fields) { this.#line('warn', text, fields); }
  error(text, fields) { this.#line('error', text, fields); }

  #line(level, text, fields) {
    const line = { '@timestamp': new Date().toISOString(), '@level': level, '@message': String(text) };
    for (const [name, value] of Object.entries(fields ?? {})) {
      if (name.startsWith('@')) continue;
      line[name] = value instanceof Error ? value.message : value;
      if (value instanceof Error) line.stack = value.stack;
    }
    this.#write(JSON.stringify(line, plain) + '\n');
  }
}

// JSON has no BigInt.
const plain = (_, value) => (typeof value === 'bigint' ? String(value) : value);

function stderr(line) {
  try {
    writeSync(2, line);
  } catch {
    // Nobody reads it, or not fast enough: a log line is not worth a mail.
  }
}
