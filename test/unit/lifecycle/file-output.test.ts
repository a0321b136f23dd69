import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import type { Deps } from '../../../agent/base/deps';
import { WatchedSource } from '../../../agent/base/watched';
import type { CertState } from '../../../agent/identity/cert-state';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import { createFileOutput, type FileOutput } from '../../../agent/lifecycle/file-output';
import { HOUR, tell } from '../../support/keeper-story';
import { testRoots } from '../../support/scripted-ca';
import { tempDir } from '../../support/temp-dir';
import { settle, TestClock } from '../../support/test-clock';
import { testDeps } from '../../support/test-deps';

const open: FileOutput[] = [];
afterEach(async () => {
  for (const output of open.splice(0)) await output.close();
});

function output(
  dir: string,
  state: CertState | { state: WatchedSource<CertState> },
  deps: Partial<Deps> = {},
) {
  const watched = 'state' in state ? state.state : new WatchedSource<CertState>(state);
  const using = testDeps(deps);
  const files = createFileOutput({ dir, state: watched, keyFormat: 'pkcs8' }, using);
  open.push(files);
  return { files, watched, events: using.events };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** The serial of the pair that lies there; fails where key and certificate do not match. */
function pairIn(dir: string): string {
  const leaf = new X509Certificate(readFileSync(join(dir, 'cert-chain.pem')));
  const key = createPublicKey(createPrivateKey(readFileSync(join(dir, 'key.pem'))));
  expect(leaf.publicKey.equals(key)).toBe(true);
  return leaf.serialNumber.toLowerCase();
}

test('E9 key, chain and roots are written on every rotation, not only the first, without any SDS client', async () => {
  const dir = join(tempDir(), 'certs');
  const story = await tell();
  const { files } = output(dir, { state: story.keeper.state as WatchedSource<CertState> });
  for (let rotation = 0; rotation < 4; rotation += 1) {
    const { serial } = story.svid!;
    await until(() => files.status().serial === serial);
    expect(pairIn(dir)).toBe(serial);
    expect(
      readdirSync(dir)
        .filter((name) => !name.startsWith('..'))
        .sort(),
    ).toEqual(['cert-chain.pem', 'key.pem', 'root-cert.pem']);
    await story.clock.advanceBy(12 * HOUR);
  }
  expect(statSync(join(dir, 'key.pem')).mode & 0o777).toBe(0o600);
  for (const open of ['cert-chain.pem', 'root-cert.pem'])
    expect(statSync(join(dir, open)).mode & 0o777).toBe(0o644);
});

test('a changed bundle is written beside the same certificate', async () => {
  const dir = tempDir();
  const story = await tell();
  const { files } = output(dir, { state: story.keeper.state as WatchedSource<CertState> });
  await until(() => files.status().serial !== undefined);
  const [old, next] = await testRoots();
  story.ca.trust.set(createTrustBundle([old.certificateDer, next.certificateDer]));
  await until(() => readFileSync(join(dir, 'root-cert.pem'), 'utf8').split('BEGIN').length === 3);
  expect(pairIn(dir)).toBe(story.svid!.serial);
});

test('a state that changes nothing for a reader writes nothing', async () => {
  const dir = tempDir();
  const story = await tell();
  const counted: unknown[] = [];
  const { files } = output(
    dir,
    { state: story.keeper.state as WatchedSource<CertState> },
    { metrics: { record: (...each) => counted.push(each) } },
  );
  await until(() => files.status().serial !== undefined);
  story.ca.failWith('ERR_CA_UNAVAILABLE');
  await story.clock.advanceBy(20 * HOUR);
  expect(story.keeper.state.value.kind).toBe('overdue');
  expect(counted).toEqual([['output_writes_total', { outcome: 'ok' }]]);
});

test('E5 a directory that cannot be written to is tried again, and told', async () => {
  const clock = new TestClock();
  const dir = join(tempDir(), 'file');
  writeFileSync(dir, 'not a directory');
  const story = await tell({ clock });
  const counted: unknown[] = [];
  const { files, events } = output(dir, story.keeper.state.value, {
    clock,
    metrics: { record: (...each) => counted.push(each) },
  });
  await until(() => events.length === 1);
  expect(files.status()).toEqual({ dir, error: expect.stringContaining(`write ${dir}: `) });
  expect(events[0]).toMatchObject({
    level: 'warn',
    event: 'writing certificate files failed, keeping the previous ones',
    facts: { attempt: 1, retryInSeconds: 1 },
  });
  rmSync(dir);
  await settle();
  await clock.advanceBy(1_000);
  await until(() => files.status().serial !== undefined);
  expect(files.status()).toEqual({ dir, serial: story.svid!.serial });
  expect(counted).toEqual([
    ['output_writes_total', { outcome: 'ERR_OUTPUT' }],
    ['output_writes_total', { outcome: 'ok' }],
  ]);
});

test('E10 a directory that everybody may write to is warned of', async () => {
  const dir = tempDir();
  chmodSync(dir, 0o777);
  const story = await tell();
  const { files, events } = output(dir, story.keeper.state.value);
  await until(() => files.status().serial !== undefined);
  expect(events[0]).toMatchObject({
    level: 'warn',
    facts: { dir, because: `${dir}: every user may write to it` },
  });
});

test('close ends a wait at once and writes nothing after, whatever changes, and listens no more', async () => {
  const clock = new TestClock();
  const dir = join(tempDir(), 'file');
  writeFileSync(dir, '');
  const story = await tell({ clock });
  const state = new CountedSource(story.keeper.state.value);
  const { files, events } = output(dir, { state }, { clock });
  await until(() => events.length === 1);
  expect(state.listeners).toBe(1);
  await files.close();
  expect(state.listeners).toBe(0);
  // Now it could be written to.
  rmSync(dir);
  await clock.advanceBy(HOUR);
  state.set(story.keeper.state.value);
  await settle();
  expect(existsSync(dir)).toBe(false);
  expect(files.status().serial).toBeUndefined();
});

class CountedSource extends WatchedSource<CertState> {
  listeners = 0;

  override subscribe(listener: (value: CertState) => void): () => void {
    const stop = super.subscribe(listener);
    this.listeners += 1;
    return () => {
      stop();
      this.listeners -= 1;
    };
  }
}
