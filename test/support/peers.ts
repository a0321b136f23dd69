import { test } from '@jest/globals';
import { type PeerName, peerPath } from './peer-path';

/**
 * `test` for what needs peers. Without them it fails in CI (`CI=true`) and is skipped, loudly, elsewhere.
 *
 * @example testWith('envoy')('Envoy takes the certificate', async () => ...)
 */
export function testWith(...names: readonly PeerName[]): typeof test | typeof test.skip {
  const missing = names.filter((name) => peerPath(name) === undefined);
  if (missing.length === 0) return test;
  const remedy = `provide it with: scripts/peers ${missing.join(' ')}`;
  if (process.env.CI === 'true') throw new Error(`${missing.join(' and ')} is missing; ${remedy}`);
  process.stderr.write(`SKIPPED ${missing.join(' and ')} is missing; ${remedy}\n`);
  return test.skip;
}
