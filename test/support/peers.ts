import { describe, test } from '@jest/globals';
import { type PeerName, peerPath } from './peer-path';

/** Peers that take so long to build that `scripts/test` provides them at full length only. Where they are there already, they are used. */
const AT_FULL_LENGTH: readonly PeerName[] = ['istiod', 'pilot-agent'];

/**
 * `test` for what needs peers. Without them it fails in CI (`CI=true`) and is skipped, loudly, elsewhere; so it is in CI, where all that is
 * missing belongs to the full length and this is not that.
 *
 * @example testWith('envoy')('Envoy takes the certificate', async () => ...)
 */
export function testWith(...names: readonly PeerName[]): typeof test | typeof test.skip {
  return areMissing(names) ? test.skip : test;
}

/** As `testWith`, for a group of tests with what they share: its hooks are skipped too. */
export function describeWith(...names: readonly PeerName[]): typeof describe | typeof describe.skip {
  return areMissing(names) ? describe.skip : describe;
}

function areMissing(names: readonly PeerName[]): boolean {
  const missing = names.filter((name) => peerPath(name) === undefined);
  if (missing.length === 0) return false;
  const isForNow = (name: PeerName) => process.env.KEYTURN_TEST === 'full' || !AT_FULL_LENGTH.includes(name);
  const remedy = `provide it with: scripts/peers ${missing.join(' ')}`;
  if (process.env.CI === 'true' && missing.some(isForNow)) throw new Error(`${missing.join(' and ')} is missing; ${remedy}`);
  const where = missing.some(isForNow) ? '' : ' (scripts/test full does)';
  process.stderr.write(`SKIPPED ${missing.join(' and ')} is missing; ${remedy}${where}\n`);
  return true;
}
