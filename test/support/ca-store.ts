import { createHash, randomBytes } from 'node:crypto';
import { randomSerial } from '../../agent/authority/serial';
import type { IssuedEntry } from '../../agent/authority/store/store';
import type { TokenClaim } from '../../agent/authority/store/token-use';
import { HOUR_MS, TEST_ID, TEST_NOW } from './certs';

/** A certificate as it could have been signed at TEST_NOW for an hour, with a serial of its own. */
export function issuedEntry(fields: Partial<IssuedEntry> = {}): IssuedEntry {
  const serial = Buffer.from(randomSerial()).toString('hex');
  return {
    serial,
    id: TEST_ID,
    keySha256: createHash('sha256').update(serial).digest('hex'),
    issuedAt: TEST_NOW,
    notAfterAt: TEST_NOW + HOUR_MS,
    issuerKeyId: 'aa'.repeat(20),
    rootKeySha256: 'bb'.repeat(32),
    ...fields,
  };
}

/** Somebody who shows a join token: by default with a key that nobody else has. */
export function tokenClaim(keySha256 = randomBytes(32).toString('hex')): TokenClaim {
  return { keySha256, by: randomBytes(12).toString('hex') };
}
