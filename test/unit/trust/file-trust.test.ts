import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { followTrustFile } from '../../../agent/trust/file-trust';
import { followFiles } from '../../../agent/trust/follow-files';
import { makeTestCa, uriAltName } from '../../support/certs';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';
import { rootsPem } from '../../support/tls-ca';
import { until } from '../../support/until';

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

function follow(path: string, domains?: ReadonlySet<string>) {
  const deps = testDeps();
  const file = followTrustFile(path, domains, deps);
  open.push(file);
  return { file, deps };
}

describe('a file of roots', () => {
  test('is read at once, without what is damaged in it, and that is said once', async () => {
    const root = await makeTestCa();
    const path = join(tempDir(), 'roots.pem');
    writeFileSync(
      path,
      `${rootsPem(root)}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`,
    );
    const { file, deps } = follow(path);
    await file.ready;
    await file.refresh();
    expect([file.trust.value, file.problem()]).toEqual([root.bundle, undefined]);
    expect(deps.events).toEqual([
      {
        level: 'warn',
        event: 'trust bundle file has invalid roots, using the others',
        facts: { file: path, skipped: [expect.any(String)] },
      },
    ]);
  });

  test('item 24 of another trust domain is refused by name, and the others are taken', async () => {
    const [root, foreign] = [
      await makeTestCa(),
      await makeTestCa({ name: 'old', extraExtensions: [uriAltName('spiffe://old.example')] }),
    ];
    const path = join(tempDir(), 'roots.pem');
    writeFileSync(path, rootsPem(root, foreign));
    const { file, deps } = follow(path, new Set(['cluster.local']));
    await file.ready;
    expect(file.trust.value).toEqual(root.bundle);
    expect(deps.events[0]!.facts).toMatchObject({
      skipped: [expect.stringContaining('is a root of trust domain old.example')],
    });
    writeFileSync(path, rootsPem(foreign));
    await file.refresh();
    expect(file.problem()).toMatchObject({ message: expect.stringContaining('old.example') });
    expect(file.trust.value).toEqual(root.bundle);
    const both = follow(path, new Set(['cluster.local', 'old.example']));
    await both.file.ready;
    expect(both.file.trust.value).toEqual(foreign.bundle);
  });

  test('is followed through the swaps of a Kubernetes volume, the second one too', async () => {
    const roots = await Promise.all(['a', 'b', 'c'].map((name) => makeTestCa({ name })));
    const dir = tempDir();
    const swap = (index: number) => {
      mkdirSync(join(dir, `..${index}`));
      writeFileSync(join(dir, `..${index}`, 'roots.pem'), rootsPem(roots[index]!));
      symlinkSync(`..${index}`, join(dir, '..data_tmp'));
      renameSync(join(dir, '..data_tmp'), join(dir, '..data'));
    };
    swap(0);
    symlinkSync('..data/roots.pem', join(dir, 'roots.pem'));
    const { file } = follow(join(dir, 'roots.pem'));
    for (const index of [0, 1, 2]) {
      if (index > 0) swap(index);
      await until(
        `bundle ${index}`,
        async () => file.trust.value?.version === roots[index]!.bundle.version,
      );
    }
  });

  test('that is the same again is no change', async () => {
    const path = join(tempDir(), 'roots.pem');
    writeFileSync(path, rootsPem(await makeTestCa()));
    const { file } = follow(path);
    await file.ready;
    const bundles: unknown[] = [];
    file.trust.subscribe((bundle) => bundles.push(bundle));
    writeFileSync(path, '# the same roots, with a comment\n', { flag: 'a' });
    await file.refresh();
    expect(bundles).toHaveLength(1);
  });
});

test('a look that fails is repeated with growing waits, and none comes after the end', async () => {
  const clock = new TestClock();
  let looks = 0;
  const look = async () => {
    looks += 1;
    if (looks < 3) throw new Error('not yet');
  };
  const followed = followFiles([join(tempDir(), 'x')], look, testDeps({ clock }));
  await clock.advanceBy(1_999);
  expect(looks).toBe(0);
  await clock.advanceBy(1);
  await until('the first look', async () => looks === 1);
  for (const [ms, want] of [
    [999, 1],
    [1, 2],
    [1_999, 2],
    [1, 3],
    [20_000, 3],
  ] as const) {
    await clock.advanceBy(ms);
    expect(looks).toBe(want);
  }
  await followed.close();
  await clock.advanceBy(60_000);
  expect(looks).toBe(3);
});
