import { describe, expect, test } from '@jest/globals';
import {
  contextTag,
  type DerReader,
  derBitString,
  derBoolean,
  derElement,
  derInteger,
  derOctetString,
  derOid,
  derSequence,
  derSet,
  derTime,
  readDer,
  TAG,
} from '../../../agent/base/der';
import { outcome } from '../../support/outcome';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const read = <T>(der: Uint8Array, reader: (input: DerReader) => T) =>
  outcome(() => readDer(der, 'thing', reader));
const refused = (rule: string, field = 'thing x') => ({ field, rule });

describe('lengths', () => {
  const string = (input: DerReader) => Buffer.from(input.octetString('x')).toString('hex');
  test.each([
    ['04 00', ''],
    ['04 02 aabb', 'aabb'],
    ['04 80 aabb 0000', refused('must not have an indefinite length')],
    ['04 81 02 aabb', refused('must have a minimal length')],
    ['04 82 0002 aabb', refused('must have a minimal length')],
    ['04 85 0000000002 aabb', refused('is too long')],
    ['04 ff', refused('is too long')],
    ['04 84 ffffffff', refused('is cut off')],
    ['04 03 aabb', refused('is cut off')],
    ['04 81', refused('is cut off')],
    ['04', refused('is cut off')],
    ['', { field: 'thing', rule: 'must not be empty' }],
    ['04 02 aabb 00', { field: 'thing', rule: 'must not have trailing bytes' }],
    ['05 00', refused('must have tag 0x04, not 0x05')],
    ['1f 81 01 00', refused('must have tag 0x04, not 0x1f')],
  ])('of an octet string %s', (der, want) => expect(read(hex(der), string)).toEqual(want));

  test('are read and written alike at every boundary', () => {
    for (const length of [0, 1, 127, 128, 255, 256, 65_000]) {
      const der = derOctetString(Buffer.alloc(length, 7));
      expect(read(der, (input) => input.octetString('x').length)).toBe(length);
    }
    expect(derOctetString(Buffer.alloc(128)).subarray(0, 3)).toEqual(hex('04 81 80'));
    expect(derOctetString(Buffer.alloc(256)).subarray(0, 4)).toEqual(hex('04 82 0100'));
  });

  test('beyond the size cap are refused before a byte is read', () => {
    const want = { field: 'thing', rule: 'must not be longer than 65536 bytes' };
    expect(read(Buffer.alloc(65_537), (input) => input.any('x'))).toEqual(want);
  });
});

test.each([
  ['02 01 00', 0],
  ['02 01 7f', 127],
  ['02 02 0080', 128],
  ['02 04 7fffffff', 2 ** 31 - 1],
  ['02 05 0080000000', refused('is too large')],
  ['02 01 80', refused('must not be negative')],
  ['02 02 007f', refused('must be a minimal integer')],
  ['02 02 ff80', refused('must be a minimal integer')],
  ['02 00', refused('must not be empty')],
])('a small integer %s', (der, want) =>
  expect(read(hex(der), (input) => input.smallInteger('x'))).toEqual(want),
);

test.each([0, 1, 127, 128, 255, 256, 65_537, 2 ** 31 - 1])('the integer %d comes back', (value) =>
  expect(read(derInteger(value), (input) => input.smallInteger('x'))).toBe(value),
);

test('an integer of octets is written positive and minimal', () => {
  expect(derInteger(hex('00 00 80'))).toEqual(hex('02 02 0080'));
  expect(derInteger(hex('00'))).toEqual(hex('02 01 00'));
  expect(derInteger(hex('7f'))).toEqual(hex('02 01 7f'));
});

test.each([
  ['01 01 ff', true],
  ['01 01 00', false],
  ['01 01 01', refused('must be a DER boolean')],
  ['01 00', refused('must be a DER boolean')],
  ['01 02 ffff', refused('must be a DER boolean')],
])('a boolean %s', (der, want) =>
  expect(read(hex(der), (input) => input.boolean('x'))).toEqual(want),
);

test.each([
  ['06 03 550411', '2.5.4.17'],
  ['06 01 2a', '1.2'],
  ['06 01 00', '0.0'],
  ['06 02 8837', '2.999'],
  ['06 00', refused('must be an object identifier')],
  ['06 03 550480', refused('must be an object identifier')],
  ['06 04 55048001', refused('must be an object identifier')],
  ['06 03 802a03', refused('must be an object identifier')],
  ['06 0a 2affffffffffffffff7f', refused('must be an object identifier')],
])('an object identifier %s', (der, want) =>
  expect(read(hex(der), (input) => input.oid('x'))).toEqual(want),
);

test.each([
  '1.2.840.113549.1.1.11',
  '2.5.29.17',
  '0.9.2342.19200300.100.1.25',
  '2.999.1',
  '1.3.6.1.4.1.11129.2.4.2',
])('%s comes back', (oid) => expect(read(derOid(oid), (input) => input.oid('x'))).toBe(oid));

test.each([
  ['03 02 07 80', { unusedBits: 7, bytes: hex('80') }],
  ['03 01 00', { unusedBits: 0, bytes: hex('') }],
  ['03 02 07 81', refused('must have zeros as unused bits')],
  ['03 02 08 00', refused('must be a bit string')],
  ['03 01 01', refused('must be a bit string')],
  ['03 00', refused('must be a bit string')],
])('a bit string %s', (der, want) =>
  expect(read(hex(der), (input) => input.bitString('x'))).toEqual(want),
);

test('a key or a signature is whole octets', () => {
  expect(read(derBitString(hex('80'), 7), (input) => input.octetBits('x'))).toEqual(
    refused('must be whole octets'),
  );
  expect(read(derBitString(hex('81')), (input) => input.octetBits('x'))).toEqual(hex('81'));
});

describe('F9 certificate times', () => {
  const utcRule = refused('must be YYMMDDHHMMSSZ');
  const generalRule = refused('must be YYYYMMDDHHMMSSZ, 2050 or later');
  test.each([
    ['utc', '260101000000Z', '2026-01-01T00:00:00.000Z'],
    ['utc', '491231235959Z', '2049-12-31T23:59:59.000Z'],
    ['utc', '500101000000Z', '1950-01-01T00:00:00.000Z'],
    ['utc', '240229000000Z', '2024-02-29T00:00:00.000Z'],
    ['utc', '230229000000Z', utcRule],
    ['utc', '2601010000Z', utcRule],
    ['utc', '260101000000', utcRule],
    ['utc', '260101000000+0000', utcRule],
    ['utc', '260101000000.5Z', utcRule],
    ['utc', '261301000000Z', utcRule],
    ['utc', '260100000000Z', utcRule],
    ['utc', '260431000000Z', utcRule],
    ['utc', '260101240000Z', utcRule],
    ['utc', '260101006000Z', utcRule],
    ['utc', '260101000060Z', utcRule],
    ['utc', '26010100000 Z', utcRule],
    ['utc', '', utcRule],
    ['general', '20500101000000Z', '2050-01-01T00:00:00.000Z'],
    ['general', '99991231235959Z', '9999-12-31T23:59:59.000Z'],
    ['general', '20491231235959Z', generalRule],
    ['general', '00000101000000Z', generalRule],
    ['general', '20500101000000.5Z', generalRule],
    ['general', '205001010000Z', generalRule],
    ['general', '20500101000000', generalRule],
    ['general', '20500230000000Z', generalRule],
  ])('%s %s', (kind, digits, want) => {
    const der = derElement(kind === 'utc' ? TAG.utcTime : TAG.generalizedTime, Buffer.from(digits));
    const time = read(der, (input) => input.time('x'));
    expect(typeof time === 'number' ? new Date(time).toISOString() : time).toEqual(want);
  });

  test.each([
    '1950-01-01T00:00:00Z',
    '2049-12-31T23:59:59Z',
    '2050-01-01T00:00:00Z',
    '9999-12-31T23:59:59Z',
  ])('%s comes back', (text) =>
    expect(read(derTime(Date.parse(text)), (input) => input.time('x'))).toBe(Date.parse(text)),
  );

  test('are cut to the second when written', () =>
    expect(derTime(Date.parse('2026-01-01T00:00:00.999Z'))).toEqual(
      derTime(Date.parse('2026-01-01T00:00:00Z')),
    ));

  test('are nothing else than the two kinds of time', () =>
    expect(read(derInteger(1), (input) => input.time('x'))).toEqual(
      refused('must be UTCTime or GeneralizedTime'),
    ));
});

test('what a reader leaves unread is refused at every level', () => {
  const der = derSequence(derSequence(derInteger(1), derInteger(2)), derInteger(3));
  const one = (input: DerReader) => input.smallInteger('x');
  expect(
    read(der, (input) => input.sequence('outer', (outer) => outer.sequence('inner', one))),
  ).toEqual(refused('must not have trailing bytes', 'thing inner'));
  const both = (inner: DerReader) => [one(inner), one(inner)];
  expect(
    read(der, (input) => input.sequence('outer', (outer) => outer.sequence('inner', both))),
  ).toEqual(refused('must not have trailing bytes', 'thing outer'));
});

test('an optional element is read where it stands and missed where not', () => {
  const der = derSequence(derElement(contextTag(0), derInteger(2)), derBoolean(true));
  const first = (outer: DerReader) =>
    outer.optional('version', contextTag(0), (inner) => inner.smallInteger('x'));
  const second = (outer: DerReader) =>
    outer.optional('more', contextTag(1), (inner) => inner.smallInteger('x'));
  expect(
    read(der, (input) =>
      input.sequence('outer', (outer) => [second(outer), first(outer), outer.boolean('x')]),
    ),
  ).toEqual([undefined, 2, true]);
});

test('a list ends at its cap', () => {
  const der = derSequence(...Array.from({ length: 5 }, () => derInteger(1)));
  const list = (max: number) => (outer: DerReader) =>
    outer.list('items', max, (each) => each.smallInteger('x'));
  expect(read(der, (input) => input.sequence('outer', list(5)))).toEqual([1, 1, 1, 1, 1]);
  expect(read(der, (input) => input.sequence('outer', list(4)))).toEqual(
    refused('must not hold more than 4 items', 'thing items'),
  );
});

test('a set is written in the order of its encodings', () =>
  expect(derSet(derInteger(2), derInteger(1))).toEqual(hex('31 06 020101 020102')));

test('nesting of any depth costs no stack', () => {
  let der: Uint8Array = derInteger(1);
  while (der.length < 60_000) der = derSequence(der);
  expect(read(der, (input) => input.sequence('outer', (outer) => outer.smallInteger('x')))).toEqual(
    refused('must have tag 0x02, not 0x30'),
  );
});
