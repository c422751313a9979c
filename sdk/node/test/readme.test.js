// The README's programs do what it says.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

test('the programs of the README', (t) => {
  const programs = [...readFileSync(path.join(root, 'README.md'), 'utf8').matchAll(/^```js\n([^]*?)^```$/gm)].map((m) => m[1]);
  assert.equal(programs.length, 2);
  const dir = mkdtempSync(path.join(tmpdir(), 'readme'));
  t.after(() => rmSync(dir, { recursive: true }));
  mkdirSync(path.join(dir, 'node_modules', '@stagecoach-mta'), { recursive: true });
  symlinkSync(root, path.join(dir, 'node_modules', '@stagecoach-mta', 'plugin'));
  writeFileSync(path.join(dir, 'subject.mjs'), programs[0], { mode: 0o755 });
  writeFileSync(path.join(dir, 'subject.test.mjs'), programs[1]);
  const env = { PATH: process.env.PATH };
  const tested = spawnSync(process.execPath, ['--test', 'subject.test.mjs'], { cwd: dir, env, encoding: 'utf8' });
  assert.equal(tested.status, 0, tested.stdout);
  const byHand = spawnSync(path.join(dir, 'subject.mjs'), { env, encoding: 'utf8' });
  assert.equal(byHand.status, 2);
  assert.match(byHand.stderr, /filter "subject" "my"/);
});
