import { describe, test } from '@jest/globals';
import { type PeerName, peerPath } from './peer-path';

/** Peers that take so long to build, or to speak to, that `scripts/test` provides them at full length only. Where they are there already, they are used. */
const AT_FULL_LENGTH: readonly PeerName[] = [
  'istiod',
  'pilot-agent',
  'javaspiffe',
  'pyspiffe',
  'rustspiffe',
];

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
export function describeWith(
  ...names: readonly PeerName[]
): typeof describe | typeof describe.skip {
  return areMissing(names) ? describe.skip : describe;
}

/**
 * `test` for what no program can provide but the machine must grant, such as root: by the same rule as `testWith`.
 *
 * @param isGranted  Whether it does; found out by trying.
 * @param what       What is to be granted, e.g. `root`.
 * @param remedy     e.g. `run the tests as root`.
 */
export function testWhere(
  isGranted: boolean,
  what: string,
  remedy: string,
): typeof test | typeof test.skip {
  if (isGranted) return test;
  skip(`${what} is missing; provide it with: ${remedy}`, true);
  return test.skip;
}

function areMissing(names: readonly PeerName[]): boolean {
  const missing = names.filter((name) => peerPath(name) === undefined);
  if (missing.length === 0) return false;
  const isForNow = (name: PeerName) =>
    process.env.KEYTURN_TEST === 'full' || !AT_FULL_LENGTH.includes(name);
  const where = missing.some(isForNow) ? '' : ' (scripts/test full does)';
  skip(
    `${missing.join(' and ')} is missing; provide it with: scripts/peers ${missing.join(' ')}${where}`,
    missing.some(isForNow),
  );
  return true;
}

/**
 * CI must have everything that belongs to the length at which it tests. What `scripts/test` runs as
 * another user has run as root before.
 */
function skip(why: string, isForNow: boolean): void {
  if (process.env.KEYTURN_TEST_USER === 'other') return;
  if (process.env.CI === 'true' && isForNow) throw new Error(why);
  process.stderr.write(`SKIPPED ${why}\n`);
}
