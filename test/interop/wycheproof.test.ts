import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { type KeySet, parseKeySet, TOKEN_ALGORITHMS } from '../../agent/jwt/key-set';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';

interface Jwk {
  readonly alg?: string;
}

interface Group {
  /** Absent where the key is symmetric. A key, or a set of one. */
  readonly public?: Jwk | { readonly keys: readonly Jwk[] };
  readonly private: Jwk | { readonly keys: readonly Jwk[] };
  readonly tests: readonly {
    readonly tcId: number;
    readonly comment: string;
    readonly jws: string;
    readonly result: string;
  }[];
}

const FILES = ['json_web_signature_test.json', 'json_web_key_test.json'] as const;

testWith('wycheproof').each(FILES)(
  '%s: no false token is taken, and every true one that policy lets through',
  async (file) => {
    const wrong: string[] = [];
    let taken = 0;
    for (const group of groupsOf(file)) {
      const keySet = await parseKeySet(keysOf(group), 'jwks', TOKEN_ALGORITHMS).catch(
        () => undefined,
      );
      for (const { tcId, comment, jws, result } of group.tests) {
        const isTaken = await isVerified(keySet, jws);
        taken += isTaken ? 1 : 0;
        const isDue = result === 'valid' && !isAgainstPolicy(group, jws);
        if (isTaken !== isDue) wrong.push(`${tcId} ${comment}: ${isTaken ? 'taken' : 'refused'}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(taken).toBeGreaterThan(0);
  },
);

function groupsOf(file: string): readonly Group[] {
  return JSON.parse(readFileSync(join(peerPath('wycheproof')!, file), 'utf8')).testGroups;
}

function keysOf(group: Group): string {
  const key = group.public ?? group.private;
  return JSON.stringify('keys' in key ? key : { keys: [key] });
}

async function isVerified(keySet: KeySet | undefined, jws: string): Promise<boolean> {
  if (keySet === undefined) return false;
  return keySet.verify(jws).then(
    () => true,
    () => false,
  );
}

/** Symmetric keys, and tokens of another algorithm than the key says it is for; some vectors allow both. */
function isAgainstPolicy(group: Group, jws: string): boolean {
  if (group.public === undefined) return true;
  const [key] = 'keys' in group.public ? group.public.keys : [group.public];
  const { alg } = JSON.parse(Buffer.from(jws.split('.')[0]!, 'base64url').toString());
  return key?.alg !== undefined && key.alg !== alg;
}
