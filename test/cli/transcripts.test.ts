import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { keyturn } from '../support/command-line';
import { tempDir } from '../support/temp-dir';
import { linesPattern, parseTranscript } from '../support/transcript';

const transcripts = readdirSync(__dirname).filter((name) => name.endsWith('.txt'));

// Blank lines are left out of transcripts and of what they are compared with.
const withoutBlanks = (text: string) => text.replace(/^\n+/gm, '');

describe.each(transcripts)('%s', (name) => {
  const scenes = parseTranscript(readFileSync(join(__dirname, name), 'utf8'));
  test('plays as it is written', async () => {
    const cwd = tempDir();
    for (const scene of scenes) {
      for (const file of scene.files) writeFileSync(join(cwd, file.name), file.text);
      const { code, stdout, stderr } = await keyturn(scene.argv, { cwd, env: scene.env });
      const where = `line ${scene.line}: `;
      expect(where + withoutBlanks(stderr)).toMatch(prefixed(where, linesPattern(scene.stderr)));
      expect(where + withoutBlanks(stdout)).toMatch(prefixed(where, linesPattern(scene.stdout)));
      expect(`${where}exit code ${code}`).toBe(`${where}exit code ${scene.code}`);
    }
    expect(scenes.length).toBeGreaterThan(0);
  });
});

/** So that a failure says which command it was. */
function prefixed(where: string, pattern: RegExp): RegExp {
  return new RegExp(`^${where}${pattern.source.slice(1)}`);
}
