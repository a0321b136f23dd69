import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { changesBetween, jsonPatch } from '../../../agent/inject/changes';
import { applyPatch } from '../../support/json-patch';
import { RUNS } from '../../support/mutations';

const patch = (before: unknown, after: unknown) => jsonPatch(changesBetween(before, after));

describe('the changes between two values', () => {
  test('are none between equal ones, whatever the order of members', () => {
    expect(patch({ a: [1, { b: null }], c: 'x' }, { c: 'x', a: [1, { b: null }] })).toEqual([]);
  });

  test('add, replace and remove members where they are, with their names escaped', () => {
    expect(
      patch({ gone: 1, 'a/b~c': 'old', same: [] }, { 'a/b~c': 'new', same: [], more: {} }),
    ).toEqual([
      { op: 'add', path: '/more', value: {} },
      { op: 'replace', path: '/a~1b~0c', value: 'new' },
      { op: 'remove', path: '/gone' },
    ]);
  });

  test('know an item of a list again by its name, and come last one first', () => {
    const before = [{ name: 'a', image: '1' }, { name: 'b' }, { name: 'c' }];
    const after = [{ name: 'new' }, { name: 'a', image: '2' }, { name: 'c' }, { name: 'end' }];
    expect(patch({ list: before }, { list: after })).toEqual([
      { op: 'add', path: '/list/3', value: { name: 'end' } },
      { op: 'remove', path: '/list/1' },
      { op: 'replace', path: '/list/0/image', value: '2' },
      { op: 'add', path: '/list/0', value: { name: 'new' } },
    ]);
  });

  test('know a mount again by its path, since a volume may be mounted twice', () => {
    const mounts = (...names: string[]) =>
      names.map((name, index) => ({ name, mountPath: `/${index}` }));
    expect(patch(mounts('v', 'v'), mounts('v', 'w'))).toEqual([
      { op: 'replace', path: '/1/name', value: 'w' },
    ]);
  });

  test('lead from any value to any other', () => {
    const item = fc.oneof(
      fc.record({ name: fc.constantFrom('a', 'b', 'c', 'd'), x: fc.nat(2) }),
      fc.nat(3),
      fc.constant(null),
    );
    const value = fc.dictionary(
      fc.constantFrom('a', 'b/~', '', 'list', '__proto'),
      fc.oneof(fc.array(item, { maxLength: 6 }), item),
    );
    fc.assert(
      fc.property(value, value, (before, after) => {
        expect(applyPatch(before, patch(before, after))).toEqual(after);
      }),
      { numRuns: RUNS },
    );
  });
});
