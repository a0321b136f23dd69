import { expect, test } from '@jest/globals';
import { parseClaims, readClaims } from '../../../agent/jwt/jwt-claims';

test.each(['[]', '[{"sub":"a"}]', 'null', '1', '"sub"', '{', ''])('%j holds no claims', (text) => {
  expect(parseClaims(text)).toBeUndefined();
  expect(readClaims(`e30.${Buffer.from(text).toString('base64url')}.c2ln`)).toBeUndefined();
});

test('one JSON object holds claims', () => {
  expect(parseClaims('{"sub":"a","aud":["b"]}')).toEqual({ sub: 'a', aud: ['b'] });
});
