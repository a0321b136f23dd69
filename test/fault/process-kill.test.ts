import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { lutimesSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { tempDir } from '../support/temp-dir';
import { testDaemon } from '../support/test-daemon';
import { until } from '../support/until';

const KILLS = process.env.KEYTURN_TEST === 'full' ? 200 : 20;
const FLAGS = ['--output-certs', './certs', '--state-dir', './state'];
/** Rotates all the time. On a busy machine it is seldom ready when asked. */
const ROTATING = [...FLAGS, '--ttl', '1s'];

/** Fails unless the files in `dir` are a key, its own certificate and the root that signed it. */
function checkTriple(dir: string): void {
  const key = createPrivateKey(readFileSync(join(dir, 'key.pem')));
  const leaf = new X509Certificate(readFileSync(join(dir, 'cert-chain.pem')));
  const root = new X509Certificate(readFileSync(join(dir, 'root-cert.pem')));
  const own = createPublicKey(key).export({ type: 'spki', format: 'der' });
  expect(leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(own)).toBe(true);
  expect(leaf.verify(root.publicKey)).toBe(true);
}

function filesIn(dir: string): string[] {
  return readdirSync(dir).includes('certs') ? readdirSync(join(dir, 'certs')) : [];
}

/** Every path below `dir`, with what varies from one certificate to the next replaced. */
function tree(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .map((path) => path.replace(/\.\.[0-9a-zA-Z_.-]{6,}|[0-9a-f]{16,}/g, '*'))
    .sort();
}

/** What a killed agent was just making is removed once it is old enough to be nobody's: here that time passes at once. */
function ageLeftovers(dir: string): void {
  for (const path of readdirSync(dir, { recursive: true, encoding: 'utf8' })) {
    if (/(^|\/)\.\.[\w.]*_[0-9a-f]{16}$/.test(path)) lutimesSync(join(dir, path), 0, 0);
  }
}

test(`G5 ${KILLS} times kill -9 at any moment leaves key and certificate of one pair and no litter`, async () => {
  const clean = tempDir();
  const once = testDaemon({ dir: clean, flags: FLAGS });
  await once.ready();
  await once.stop();

  const dir = tempDir();
  let seen = 0;
  for (let kill = 0; kill < KILLS; kill += 1) {
    const daemon = testDaemon({ dir, flags: ROTATING });
    // From before the first line of ours runs to after the first rotations; every other time there
    // are files, however long that takes.
    if (kill % 2 === 1) await until('files', async () => filesIn(dir).includes('key.pem'));
    await new Promise((resolve) => setTimeout(resolve, (kill / KILLS) * 900));
    await daemon.kill('SIGKILL');
    if (filesIn(dir).includes('key.pem')) {
      checkTriple(join(dir, 'certs'));
      seen += 1;
    }
  }
  expect(seen).toBeGreaterThanOrEqual(KILLS / 2);
  ageLeftovers(dir);
  const last = testDaemon({ dir, flags: FLAGS });
  await last.ready();
  await until(
    'the files of the last certificate',
    async () => (await last.status()).workloads[0]?.output?.serial !== undefined,
  );
  checkTriple(join(dir, 'certs'));
  await last.stop();
  expect(tree(dir)).toEqual(tree(clean));
});

test('G5 an agent that is killed and restarted within the life of its certificate asks for no other', async () => {
  const dir = tempDir();
  const flags = ['--state-dir', './state', '--ttl', '1h'];
  const serials = new Set<string | undefined>();
  for (let round = 0; round < 5; round += 1) {
    const daemon = testDaemon({ dir, flags });
    serials.add((await daemon.ready()).workloads[0]?.certificate?.serial);
    // What was obtained is on disk a moment after it is served.
    await until('the state', async () => readFileSync(join(dir, 'state', 'receipt.json'), 'utf8'));
    await daemon.kill('SIGKILL');
  }
  expect(serials.size).toBe(1);
});
