import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { type CertFileSet, makeCertFiles, swapData } from '../support/cert-files';
import { TEST_ID } from '../support/certs';
import { type Daemon, startDaemon } from '../support/daemon';
import { testRoots } from '../support/scripted-ca';
import { tempDir } from '../support/temp-dir';

let daemon: Daemon | undefined;
afterEach(async () => {
  await daemon?.stop();
});

const fresh = async () => makeCertFiles((await testRoots())[0], Date.now());
const serialOf = (files: CertFileSet) =>
  new X509Certificate(files['cert-chain.pem']).serialNumber.toLowerCase();

test('FILE_MOUNTED_CERTS serves what others mount and renew, and never asks or makes a CA', async () => {
  const dir = tempDir();
  const mounted = join(dir, 'var/run/secrets/workload-spiffe-credentials');
  mkdirSync(mounted, { recursive: true });
  const first = await fresh();
  swapData(mounted, first);
  daemon = startDaemon({
    dir,
    source: [],
    identity: [],
    env: { FILE_MOUNTED_CERTS: 'true' },
    flags: ['--output-certs', 'copy'],
  });
  const status = await daemon.ready();
  expect(status.workloads[0]).toMatchObject({
    id: TEST_ID,
    source: 'file',
    state: 'current',
    certificate: { serial: serialOf(first) },
  });

  for (let rotation = 0; rotation < 3; rotation += 1) {
    const next = await fresh();
    swapData(mounted, next);
    await daemon.event('certificate files replaced', (event) => event.serial === serialOf(next));
    await daemon.event('certificate files written', (event) => event.serial === serialOf(next));
  }
  const bad = await fresh();
  writeFileSync(join(mounted, 'key.pem'), 'garbage');
  await daemon.event('certificate files invalid, serving the previous ones');
  expect(await daemon.status()).toMatchObject({
    ready: true,
    workloads: [{ state: 'overdue', lastError: { code: 'ERR_FILE_SOURCE' } }],
  });
  swapData(mounted, bad);
  await daemon.event('certificate files replaced', (event) => event.serial === serialOf(bad));
  expect(existsSync(join(dir, 'var/lib'))).toBe(false);
});
