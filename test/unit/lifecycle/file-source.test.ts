import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { systemClock } from '../../../agent/base/clock';
import type { Deps } from '../../../agent/base/deps';
import { firstValue } from '../../../agent/base/watched';
import type { CertSource, CertState } from '../../../agent/identity/cert-state';
import { certificatesPem } from '../../../agent/identity/certificate';
import { formatSpiffeId, parseSpiffeId } from '../../../agent/identity/spiffe-id';
import {
  certPathsIn,
  createFileSource,
  type FileSourceOptions,
} from '../../../agent/lifecycle/file-source';
import {
  type CertFileSet,
  makeCertFiles,
  renameFiles,
  swapData,
  writeFiles,
} from '../../support/cert-files';
import { HOUR_MS, makeTestCa, TEST_ID, TEST_NOW } from '../../support/certs';

const DAY_MS = 24 * HOUR_MS;

import { testRoots } from '../../support/scripted-ca';
import { tempDir } from '../../support/temp-dir';
import { TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

const open: CertSource[] = [];
afterEach(async () => {
  for (const source of open.splice(0)) await source.close();
});

/** A source over `dir`, watched. On the machine's clock unless told otherwise. */
function watch(dir: string, options: Partial<FileSourceOptions> = {}, more: Partial<Deps> = {}) {
  const deps = testDeps(more);
  const source = createFileSource(
    { paths: certPathsIn(dir), expectedId: parseSpiffeId(TEST_ID), ...options },
    deps,
  );
  open.push(source);
  const states: CertState[] = [];
  source.state.subscribe((state) => states.push(state));
  const reach = (wanted: (state: CertState) => boolean) => firstValue(source.state, wanted);
  return {
    source,
    deps,
    states,
    reach,
    /** Resolves with the next certificate that differs from the one in service. */
    another: () => {
      const before = serialOf(source.state.value);
      return reach((state) => state.kind === 'current' && serialOf(state) !== before);
    },
    /** The certificates that were offered, each once. */
    serials: () => [...new Set(states.map(serialOf).filter((serial) => serial !== undefined))],
    quiet: () => new Promise((resolve) => setTimeout(resolve, 400)),
  };
}

const serialOf = (state: CertState) =>
  state.kind === 'current' || state.kind === 'overdue' ? state.svid.serial : undefined;
const fresh = async () => makeCertFiles((await testRoots())[0], systemClock.now());

/** Longer than any test here: what a retry alone could mend stays as it is. */
const slowly = () => 0.999;

describe('mounted certificate files', () => {
  test('are served with the identity that they carry', async () => {
    const dir = tempDir();
    writeFiles(dir, await fresh());
    const { source, reach } = watch(dir, { expectedId: undefined });
    const state = await reach(({ kind }) => kind === 'current');
    expect(state).toMatchObject({
      kind: 'current',
      renewAt: undefined,
      svid: { source: 'file' },
      bundle: (await testRoots())[0].bundle,
    });
    expect(formatSpiffeId((state as CertState & { kind: 'current' }).svid.id!)).toBe(TEST_ID);
    expect(source.describe()).toMatchObject({
      source: 'file',
      failures: 0,
      renewals: 1,
      plan: [{ rule: 'renewed by others' }, { rule: 'certificate expires' }],
    });
  });

  test('as one credential bundle, with the roots in a file of their own, are read and followed', async () => {
    const dir = tempDir();
    const mount = (files: CertFileSet) => {
      swapData(dir, {
        'bundle.pem': Buffer.concat([files['key.pem'], files['cert-chain.pem']]),
        'roots.pem': files['root-cert.pem'],
      });
    };
    mount(await fresh());
    const bundle = join(dir, 'bundle.pem');
    const { reach, another, source } = watch(dir, {
      paths: { key: bundle, certChain: bundle, rootCert: join(dir, 'roots.pem') },
    });
    await reach(({ kind }) => kind === 'current');
    const next = another();
    mount(await fresh());
    await next;
    expect(source.describe()).toMatchObject({
      failures: 0,
      renewals: 2,
      plan: [{ detail: expect.stringContaining(`${bundle}, `) }, {}],
    });
  });

  test('under other names are found', async () => {
    const dir = tempDir();
    const files = await fresh();
    for (const [from, to] of Object.entries({
      'key.pem': 'tls.key',
      'cert-chain.pem': 'tls.crt',
      'root-cert.pem': 'ca.crt',
    })) {
      writeFileSync(join(dir, to), files[from as keyof CertFileSet]);
    }
    const { reach } = watch(dir, {
      paths: certPathsIn(dir, { key: 'tls.key', certChain: 'tls.crt', rootCert: 'ca.crt' }),
    });
    await reach(({ kind }) => kind === 'current');
  });

  test('E1 that are missing at the start are served when they appear, directory and all', async () => {
    const dir = join(tempDir(), 'run', 'secrets');
    const { reach, source } = watch(dir, {}, { random: slowly });
    expect(await reach(({ kind }) => kind === 'unavailable')).toMatchObject({
      expired: undefined,
      error: { code: 'ERR_FILE_SOURCE' },
    });
    mkdirSync(dir, { recursive: true });
    swapData(dir, await fresh());
    await reach(({ kind }) => kind === 'current');
    expect(source.describe().failures).toBe(0);
  });

  test('once mended are read again on a change, not for ever', async () => {
    const dir = tempDir();
    const clock = new TestClock(systemClock.now());
    const { source, reach } = watch(dir, {}, { clock });
    await reach(({ kind }) => kind === 'unavailable');
    expect(source.describe().dueAt).toBeGreaterThan(clock.now());
    writeFiles(dir, await fresh());
    await source.renewNow('test');
    expect(source.describe()).toMatchObject({ failures: 0, dueAt: undefined });
    expect(source.describe().plan.map(({ rule }) => rule)).toEqual([
      'renewed by others',
      'certificate expires',
    ]);
  });

  test('a renewal asked for reads them again', async () => {
    const dir = tempDir();
    writeFiles(dir, await fresh());
    const { source, reach } = watch(dir);
    await reach(({ kind }) => kind === 'current');
    rmSync(join(dir, 'key.pem'));
    await expect(source.renewNow('test')).rejects.toMatchObject({ code: 'ERR_FILE_SOURCE' });
    const files = await fresh();
    writeFiles(dir, files);
    expect(await source.renewNow('test')).toMatchObject({ source: 'file' });
  });

  test('of another identity are refused', async () => {
    const dir = tempDir();
    writeFiles(
      dir,
      await makeCertFiles((await testRoots())[0], systemClock.now(), {
        uris: ['spiffe://cluster.local/ns/shop/sa/other'],
      }),
    );
    expect(await watch(dir).reach(({ kind }) => kind === 'unavailable')).toMatchObject({
      error: { code: 'ERR_FILE_SOURCE' },
    });
  });
});

describe('a change of mounted files', () => {
  test.each([
    ['in place', writeFiles],
    ['by rename', renameFiles],
  ])('E2 of regular files %s gives exactly one new certificate', async (_, write) => {
    const dir = tempDir();
    writeFiles(dir, await fresh());
    const seen = watch(dir);
    await seen.reach(({ kind }) => kind === 'current');
    for (let round = 0; round < 2; round += 1) {
      const another = seen.another();
      write(dir, await fresh());
      await another;
    }
    await seen.quiet();
    expect(seen.serials()).toHaveLength(3);
    expect(seen.states.filter(({ kind }) => kind === 'current')).toHaveLength(3);
    expect(seen.source.describe().renewals).toBe(3);
  });

  test('E2 by a ..data swap is noticed on the second and every later rotation, each as one new state', async () => {
    const dir = tempDir();
    swapData(dir, await fresh());
    const seen = watch(dir);
    await seen.reach(({ kind }) => kind === 'current');
    for (let round = 0; round < 4; round += 1) {
      const another = seen.another();
      swapData(dir, await fresh());
      await another;
    }
    await seen.quiet();
    expect(seen.states.map(({ kind }) => kind)).toEqual(['starting', ...Array(5).fill('current')]);
  });

  test('of the key file alone gives no new certificate', async () => {
    const [dir, files] = [tempDir(), await fresh()];
    writeFiles(dir, files);
    const seen = watch(dir);
    await seen.reach(({ kind }) => kind === 'current');
    const stranger = await fresh();
    renameFiles(dir, { 'key.pem': Buffer.concat([files['key.pem'], Buffer.from('\n')]) });
    await seen.quiet();
    expect(seen.states.map(({ kind }) => kind)).toEqual(['starting', 'current']);
    renameFiles(dir, { 'key.pem': stranger['key.pem'] });
    await seen.reach(({ kind }) => kind === 'overdue');
    expect(seen.serials()).toHaveLength(1);
  });

  test('of the root file alone gives the same certificate with the new bundle, once', async () => {
    const [dir, [old, next]] = [tempDir(), await testRoots()];
    writeFiles(dir, await fresh());
    const seen = watch(dir);
    await seen.reach(({ kind }) => kind === 'current');
    const both = Buffer.concat([
      (await fresh())['root-cert.pem'],
      (await makeCertFiles(next, systemClock.now()))['root-cert.pem'],
    ]);
    renameFiles(dir, { 'root-cert.pem': both });
    await seen.reach(({ bundle }) => bundle?.rootsDer.length === 2);
    await seen.quiet();
    expect(seen.states.map(({ bundle }) => bundle?.version)).toEqual([
      undefined,
      old.bundle.version,
      seen.states.at(-1)!.bundle!.version,
    ]);
    expect(seen.serials()).toHaveLength(1);
  });

  test('that removes the directory and makes it again is picked up', async () => {
    const dir = join(tempDir(), 'certs');
    mkdirSync(dir);
    writeFiles(dir, await fresh());
    const seen = watch(dir, {}, { random: slowly });
    const good = await seen.reach(({ kind }) => kind === 'current');
    rmSync(dir, { recursive: true });
    expect(serialOf(await seen.reach(({ kind }) => kind === 'overdue'))).toBe(serialOf(good));
    const another = seen.another();
    mkdirSync(dir);
    writeFiles(dir, await fresh());
    await another;
  });
});

describe('bad mounted files', () => {
  const bad: Record<string, (dir: string, name: keyof CertFileSet) => void> = {
    'E3 empty': (dir, name) => writeFileSync(join(dir, name), ''),
    'E3 cut off': (dir, name) =>
      writeFileSync(join(dir, name), '-----BEGIN CERTIFICATE-----\nMIIB'),
    'E3 binary': (dir, name) => writeFileSync(join(dir, name), Buffer.alloc(4_096, 0xff)),
    'E3 huge': (dir, name) => writeFileSync(join(dir, name), Buffer.alloc(2 << 20, 0x41)),
    'E4 a FIFO': (dir, name) => {
      rmSync(join(dir, name));
      execFileSync('mkfifo', [join(dir, name)]);
    },
    'E4 a directory': (dir, name) => {
      rmSync(join(dir, name));
      mkdirSync(join(dir, name));
    },
    'E4 missing': (dir, name) => rmSync(join(dir, name)),
  };

  test.each(
    Object.entries(bad).flatMap(([what, spoil]) =>
      (['key.pem', 'cert-chain.pem', 'root-cert.pem'] as const).map(
        (name) => [what, name, spoil] as const,
      ),
    ),
  )('%s: %s keeps the last good set in service, and recovers', async (what, name, spoil) => {
    const dir = tempDir();
    writeFiles(dir, await fresh());
    const counted: string[] = [];
    const seen = watch(
      dir,
      {},
      { random: slowly, metrics: { record: (metric) => counted.push(metric) } },
    );
    const good = await seen.reach(({ kind }) => kind === 'current');
    spoil(dir, name);
    const state = await seen.reach(({ kind }) => kind === 'overdue');
    expect(state).toMatchObject({ error: { code: 'ERR_FILE_SOURCE' } });
    expect(serialOf(state)).toBe(serialOf(good));
    expect(counted).toContain('file_read_failures_total');
    if (what.startsWith('E4')) rmSync(join(dir, name), { recursive: true, force: true });
    const another = seen.another();
    renameFiles(dir, await fresh());
    await another;
    expect(seen.source.describe().failures).toBe(0);
  });

  test('E14 a root file with one bad certificate keeps the good ones', async () => {
    const [dir, files] = [tempDir(), await fresh()];
    const garbage = Buffer.from('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n');
    writeFiles(dir, {
      ...files,
      'root-cert.pem': Buffer.concat([garbage, files['root-cert.pem']]),
    });
    const state = await watch(dir).reach(({ kind }) => kind === 'current');
    expect(state.bundle!.rootsDer).toHaveLength(1);
    expect(state).toMatchObject({ svid: { warnings: [expect.stringMatching(/^skipped: /)] } });
  });

  test('are read again with growing waits, by the clock', async () => {
    const clock = new TestClock(TEST_NOW);
    const seen = watch(tempDir(), {}, { clock });
    const waits: number[] = [];
    for (let failures = 1; failures <= 4; failures += 1) {
      const state = await seen.reach(() => seen.source.describe().failures === failures);
      const { retryAt } = state as CertState & { kind: 'unavailable' };
      waits.push(retryAt - clock.now());
      // Its sleep begins after the watch has.
      await until(() => clock.nextWakeAt() === retryAt);
      await clock.advanceTo(retryAt);
    }
    expect(waits).toEqual([1_000, 2_000, 4_000, 8_000]);
  });

  test('expiry of the mounted certificate is noticed, and new files end it', async () => {
    const [dir, clock] = [tempDir(), new TestClock(TEST_NOW)];
    const [root] = await testRoots();
    writeFiles(dir, await makeCertFiles(root, TEST_NOW));
    const seen = watch(dir, {}, { clock });
    const good = await seen.reach(({ kind }) => kind === 'current');
    await clock.advanceTo(TEST_NOW + 86_400_000);
    expect(seen.source.state.value).toMatchObject({
      kind: 'unavailable',
      expired: { serial: serialOf(good) },
      error: { code: 'ERR_FILE_SOURCE' },
    });
    writeFiles(dir, await makeCertFiles(root, clock.now()));
    await seen.source.renewNow('new files');
    expect(seen.source.state.value.kind).toBe('current');
  });
});

describe('the end of mounted files', () => {
  test('field A2c is that of the longest path, also after a reading that began while it was another', async () => {
    const [dir, clock] = [tempDir(), new TestClock(TEST_NOW)];
    const renewed = await makeTestCa({ name: 'r', notAfterAt: TEST_NOW + 100 * DAY_MS });
    const old = await makeTestCa({
      name: 'r',
      privateKey: renewed.privateKey,
      notAfterAt: TEST_NOW + HOUR_MS,
    });
    const files = await makeCertFiles(old, TEST_NOW);
    writeFiles(dir, files);
    const seen = watch(dir, {}, { clock });
    expect(await seen.reach(({ kind }) => kind === 'current')).toMatchObject({
      svid: { notAfterAt: TEST_NOW + HOUR_MS },
    });
    writeFiles(dir, {
      'root-cert.pem': certificatesPem([old.certificateDer, renewed.certificateDer]),
    });
    await seen.source.renewNow('another root');
    await clock.advanceTo(TEST_NOW + 2 * HOUR_MS);
    expect(seen.source.state.value).toMatchObject({
      kind: 'current',
      svid: { notAfterAt: TEST_NOW + DAY_MS },
    });
    expect(seen.serials()).toHaveLength(1);
    expect(seen.states.map(({ kind }) => kind)).not.toContain('unavailable');
  });

  test('moves to another path when the first one ends, without a reading', async () => {
    const [dir, clock] = [tempDir(), new TestClock(TEST_NOW)];
    const soon = await makeTestCa({ name: 'r', notAfterAt: TEST_NOW + HOUR_MS });
    const later = await makeTestCa({
      name: 'r',
      privateKey: soon.privateKey,
      notBeforeAt: TEST_NOW + HOUR_MS / 2,
    });
    writeFiles(dir, {
      ...(await makeCertFiles(soon, TEST_NOW)),
      'root-cert.pem': certificatesPem([soon.certificateDer, later.certificateDer]),
    });
    const seen = watch(dir, {}, { clock });
    await seen.reach(({ kind }) => kind === 'current');
    await clock.advanceTo(TEST_NOW + HOUR_MS);
    expect(seen.source.state.value).toMatchObject({
      kind: 'current',
      svid: { notAfterAt: TEST_NOW + DAY_MS },
    });
  });
});

test('field B3 files of a certificate that is not valid yet are served when it begins', async () => {
  const [dir, clock] = [tempDir(), new TestClock(TEST_NOW)];
  const [root, next] = await testRoots();
  writeFiles(dir, await makeCertFiles(root, TEST_NOW));
  const seen = watch(dir, {}, { clock });
  const first = await seen.reach(({ kind }) => kind === 'current');
  const both = certificatesPem([root.certificateDer, next.certificateDer]);
  writeFiles(dir, {
    ...(await makeCertFiles(next, TEST_NOW, { notBeforeAt: TEST_NOW + 50_000 })),
    'root-cert.pem': both,
  });
  await seen.source.renewNow('new files');
  expect(serialOf(seen.source.state.value)).toBe(serialOf(first));
  expect(seen.source.state.value).toMatchObject({
    kind: 'current',
    bundle: { rootsDer: { length: 2 } },
  });
  expect(seen.source.describe().dueAt).toBe(TEST_NOW + 50_000);
  const another = seen.another();
  await clock.advanceTo(TEST_NOW + 50_000);
  expect(serialOf(await another)).not.toBe(serialOf(first));
  expect(seen.states.map(({ kind }) => kind)).not.toContain('overdue');
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
