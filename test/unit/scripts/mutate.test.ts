import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parseSync } from '@swc/core';
import { mutate, mutationsOf } from '../../../scripts/lib/mutate/mutations';
import { nearTests } from '../../../scripts/lib/mutate/near-tests';
import { readSurvivors } from '../../../scripts/lib/mutate/survivors';

const ROOT = join(__dirname, '../../..');
const mutants = (text: string) => mutationsOf(text).map((each) => mutate(text, each));

describe('scripts/mutate', () => {
  test.each([
    ['an operator', 'const is = a < b;', ['const is = ((a) <= (b));']],
    ['what is not there', 'const b = a ?? c;', ['const b = ((a) && (c));']],
    ['a negation', 'f(!a);', [';', 'f((a));']],
    [
      'a wait',
      'async () => { await f(); };',
      [';', 'async () => { ; };', 'async () => { (f()); };'],
    ],
    [
      'a number and a boolean',
      'const a = [3, true];',
      ['const a = [4, true];', 'const a = [3, false];'],
    ],
    ['a condition', 'if (a) b();', ['{ b(); }', ';', 'if (a) ;']],
    [
      'the other branch',
      'if (a) b(); else c();',
      ['{ b(); }', '{ c(); }', 'if (a) ; else c();', 'if (a) b(); else ;'],
    ],
    ['a choice', 'const d = a ? b : c;', ['const d = (b);', 'const d = (c);']],
    ['a refusal', 'function f() { throw e; }', ['function f() { ; }']],
    [
      'what stands after letters of two bytes',
      "const a = 'é…' + !b;",
      ["const a = (('é…') - (!b));", "const a = 'é…' + (b);"],
    ],
    ['no type', 'type A = { readonly a: 1 | true };', []],
  ])('breaks %s', (_, text, broken) => {
    expect(mutants(text).sort()).toEqual([...broken].sort());
  });

  test.each(['agent/identity/chain.ts', 'agent/lifecycle/keeper.ts'])(
    'breaks %s at points of code, each mutant a program with a name of its own place',
    (path) => {
      const text = readFileSync(join(ROOT, path), 'utf8');
      const found = mutationsOf(text);
      expect(found.length).toBeGreaterThan(100);
      for (const each of found) {
        const mutant = mutate(text, each);
        expect(mutant).not.toBe(text);
        expect(() => parseSync(mutant, { syntax: 'typescript' })).not.toThrow();
        expect(text.split('\n').length).toBeGreaterThanOrEqual(each.line);
      }
    },
  );

  test('asks the tests that import a file first, and none that run the built program', () => {
    const [direct, beside] = nearTests(ROOT, 'agent/lifecycle/rotation.ts');
    expect(direct).toContain('test/unit/lifecycle/rotation.test.ts');
    expect(beside).toContain('test/unit/lifecycle/keeper.test.ts');
  });

  test('refuses a file that no test reaches: without a list jest would run every test', () => {
    expect(() => nearTests(ROOT, 'scripts/lib/demo.ts')).toThrow(
      'no test reaches scripts/lib/demo.ts',
    );
  });

  test('takes the mutants that may live with their reason only', () => {
    const line = 'agent/a.ts: a < b => ((a) <= (b)) // both are never equal';
    expect(readSurvivors(`# words\n\n${line}\n`)).toEqual([
      { path: 'agent/a.ts', name: 'a < b => ((a) <= (b))', reason: 'both are never equal' },
    ]);
    expect(() => readSurvivors('agent/a.ts: a < b => ((a) <= (b))')).toThrow(/^line 1 is not PATH/);
    expect(() =>
      readSurvivors(readFileSync(join(ROOT, 'test/survivors.txt'), 'utf8')),
    ).not.toThrow();
  });
});
