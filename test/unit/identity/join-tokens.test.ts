import { createHash } from 'node:crypto';
import { inspect } from 'node:util';
import { expect, test } from '@jest/globals';
import { Secret } from '../../../agent/base/secret';
import { generateJoinToken, joinTokenHash } from '../../../agent/identity/join-token';

test('a join token is 256 random bits behind a prefix, and is kept by its hash', () => {
  const tokens = Array.from({ length: 100 }, generateJoinToken);
  for (const token of tokens) {
    expect(token.reveal()).toMatch(/^kt1_[A-Za-z0-9_-]{43}$/);
    expect(Buffer.from(token.reveal().slice(4), 'base64url')).toHaveLength(32);
    expect(joinTokenHash(token)).toBe(createHash('sha256').update(token.reveal()).digest('hex'));
    expect(`${token} ${JSON.stringify({ token })} ${inspect(token)}`).not.toContain(token.reveal());
  }
  expect(new Set(tokens.map((token) => token.reveal())).size).toBe(100);
});

test.each([
  '',
  'kt1_',
  `kt1_${'a'.repeat(42)}`,
  `kt1_${'a'.repeat(44)}`,
  `kt2_${'a'.repeat(43)}`,
  `kt1_${'a'.repeat(43)}\n`,
  `kt1_${'/'.repeat(43)}`,
])('%j is no join token and is looked up nowhere', (text) =>
  expect(joinTokenHash(new Secret(text))).toBeUndefined(),
);
