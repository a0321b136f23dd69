import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { isExpired, readToken } from '../../../ca-client/token';
import { makeJwt } from '../../support/fake-istio-csr';
import { outcomeOf } from '../../support/outcome';
import { tempDir } from '../../support/temp-dir';

function tokenFile(content: string | Buffer): string {
  const path = join(tempDir(), 'token');
  writeFileSync(path, content);
  return path;
}

describe('a token', () => {
  test('says until when it is good and whom it is for, where it is a JWT', async () => {
    const token = await readToken(
      tokenFile(`\n${makeJwt({ exp: 1_800_000_000, aud: ['istio-ca', 7, 'x'] })}\n`),
    );
    expect(token).toMatchObject({ expiresAt: 1_800_000_000_000, audiences: ['istio-ca', 'x'] });
    expect(await readToken(tokenFile(makeJwt({ aud: 'istio-ca' })))).toMatchObject({
      expiresAt: undefined,
      audiences: ['istio-ca'],
    });
  });

  test.each([
    ['opaque', 'kt-3f_9-x.~+/=='],
    ['of three parts that are no JSON', 'a.b.c'],
    ['of claims that are a list', `e30.${Buffer.from('[1]').toString('base64url')}.x`],
    ['with an end that is no date', makeJwt({ exp: 1e300 })],
    ['with an end in words', makeJwt({ exp: 'soon' })],
  ])('that is %s is taken as it is', async (_, text) => {
    const token = await readToken(tokenFile(text));
    expect(token).toMatchObject({ expiresAt: undefined, audiences: [] });
    expect(token.value.reveal()).toBe(text);
  });

  test.each<[string, string | Buffer, string]>([
    ['empty', '', 'must not be empty'],
    ['blank', ' \n\t', 'must not be empty'],
    ['of two lines', 'abc\ndef', 'must hold one bearer token and nothing else'],
    ['with a header in it', 'abc\r\nx-admin: yes', 'must hold one bearer token and nothing else'],
    ['binary', Buffer.from([0, 1, 2, 255]), 'must hold one bearer token and nothing else'],
    ['of more than 64 KiB', 'a'.repeat(65_537), 'must not be larger than 65536 bytes'],
  ])(
    'E3 that is %s is refused, to be tried again soon, and none of it is shown',
    async (_, content, rule) => {
      const path = tokenFile(content);
      expect(await outcomeOf(readToken(path))).toMatchObject({
        field: `token ${path}`,
        rule: expect.stringContaining(rule),
      });
      await expect(readToken(path)).rejects.toMatchObject({ code: 'ERR_TOKEN', retry: 'soon' });
      const error = await readToken(path).catch((caught: unknown) => caught);
      expect(inspect(error)).not.toMatch(/abc|x-admin|aaaa/);
    },
  );

  test('E1 that is not there yet is waited for', async () => {
    const path = join(tempDir(), 'token');
    await expect(readToken(path)).rejects.toMatchObject({ code: 'ERR_TOKEN', retry: 'soon' });
    writeFileSync(path, 'abc');
    expect((await readToken(path)).value.reveal()).toBe('abc');
  });

  test('E2 is read through the links of a Kubernetes volume, anew each time', async () => {
    const dir = tempDir();
    for (const version of ['one', 'two']) {
      mkdirSync(join(dir, version));
      writeFileSync(join(dir, version, 'token'), version);
    }
    symlinkSync('one', join(dir, '..data'));
    symlinkSync('..data/token', join(dir, 'token'));
    expect((await readToken(join(dir, 'token'))).value.reveal()).toBe('one');
    symlinkSync('two', join(dir, '..next'));
    renameSync(join(dir, '..next'), join(dir, '..data'));
    expect((await readToken(join(dir, 'token'))).value.reveal()).toBe('two');
  });

  test('never shows itself', async () => {
    const token = await readToken(tokenFile('canary'));
    expect(`${token.value} ${inspect(token)} ${JSON.stringify(token)}`).not.toContain('canary');
  });

  test('is expired at its end, or a leeway later', async () => {
    const token = await readToken(tokenFile(makeJwt({ exp: 100 })));
    expect([99_999, 100_000].map((now) => isExpired(token, now))).toEqual([false, true]);
    expect([159_999, 160_000].map((now) => isExpired(token, now, 60_000))).toEqual([false, true]);
    expect(isExpired(await readToken(tokenFile('opaque')), Number.MAX_SAFE_INTEGER)).toBe(false);
  });
});
