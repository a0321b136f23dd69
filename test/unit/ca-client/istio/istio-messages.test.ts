import { fromJson, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { StructSchema } from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError } from '../../../../agent/base/errors';
import {
  encodeCertificateReply,
  encodeCertificateRequest,
  parseCertificateReply,
  parseCertificateRequest,
} from '../../../../ca-client/istio/wire/messages';
import {
  CREATE_CERTIFICATE_PATH,
  MAX_MESSAGE_BYTES,
} from '../../../../ca-client/istio/wire/service';
import { encodeStruct, parseStruct } from '../../../../ca-client/istio/wire/struct';
import { IstioCertificateRequest } from '../../../../ca-client/proto/generated/istio/v1/auth/ca';
import { cpuMs } from '../../../support/load';
import { outcome } from '../../../support/outcome';

const CSR = '-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n';
const requestBytes = (fields: Partial<IstioCertificateRequest>) =>
  IstioCertificateRequest.encode({
    csr: CSR,
    validityDuration: 60n,
    metadata: Buffer.alloc(0),
    ...fields,
  }).finish();

describe('a certificate request', () => {
  test('is carried by the field numbers of upstream: csr 1, validity 3, metadata 4', () => {
    const bytes = encodeCertificateRequest({
      csrPem: 'x',
      ttlSeconds: 3,
      metadata: new Map([['CertSigner', 'a']]),
    });
    // Tag, length, value; the entry of the Struct is key 1 and value 2, and its Value's text is 3.
    const entry = Buffer.from([0x0a, 10, ...Buffer.from('CertSigner'), 0x12, 3, 0x1a, 1, 0x61]);
    expect(bytes).toEqual(
      Buffer.from([0x0a, 1, 0x78, 0x18, 3, 0x22, entry.length + 2, 0x0a, entry.length, ...entry]),
    );
    expect(CREATE_CERTIFICATE_PATH).toBe(
      '/istio.v1.auth.IstioCertificateService/CreateCertificate',
    );
  });

  test('reads as it was written', () => {
    const request = {
      csrPem: CSR,
      ttlSeconds: 86_400,
      metadata: new Map([
        ['CertSigner', ''],
        ['naïve', '世界'],
      ]),
    };
    expect(parseCertificateRequest(encodeCertificateRequest(request))).toEqual(request);
  });

  test.each([
    [2n ** 63n - 1n, Number.MAX_SAFE_INTEGER],
    [-(2n ** 63n), -Number.MAX_SAFE_INTEGER],
    [-1n, -1],
    [0n, 0],
  ])('of a validity of %s seconds says %s', (validityDuration, ttlSeconds) => {
    expect(parseCertificateRequest(requestBytes({ validityDuration }))).toMatchObject({
      ttlSeconds,
    });
  });

  test.each<[string, Uint8Array, string, string]>([
    ['nothing', Buffer.alloc(0), 'csr', 'must not be empty'],
    ['a csr that is a number', Buffer.from([0x08, 1]), 'csr', 'must not be empty'],
    [
      'a csr of 65537 bytes',
      requestBytes({ csr: 'x'.repeat(65_537) }),
      'csr',
      'must not be longer than 65536 bytes',
    ],
    [
      'a length beyond the end',
      Buffer.from([0x0a, 0xff, 0xff, 0x03, 0x41]),
      'request',
      'must be a well-formed protobuf message',
    ],
    [
      'a varint without end',
      Buffer.from([0x18, ...Array(11).fill(0xff)]),
      'request',
      'must be a well-formed protobuf message',
    ],
    [
      'an end of no group',
      Buffer.from([0x0a, 1, 0x78, 0x2c, 0x0a, 1, 0x79]),
      'request',
      'must not contain a stray end of group',
    ],
    [
      'an end of no group at the very end',
      Buffer.from([0x0a, 1, 0x78, 0x2c]),
      'request',
      'must not contain a stray end of group',
    ],
    [
      'a zero at the very end',
      Buffer.from([0x0a, 1, 0x78, 0x00]),
      'request',
      'must be a well-formed protobuf message',
    ],
    [
      'more than a mebibyte',
      Buffer.alloc(MAX_MESSAGE_BYTES + 1),
      'request',
      'must not be longer than 1048576 bytes',
    ],
    [
      'groups within groups',
      Buffer.alloc(100_000, 0x2b),
      'request',
      'must be a well-formed protobuf message',
    ],
  ])('A46 of %s is refused', (_, bytes, field, rule) => {
    expect(outcome(() => parseCertificateRequest(bytes))).toEqual({ field, rule });
  });

  test('A46 with a mebibyte of unknown fields is read without them', () => {
    const unknown = new BinaryWriter()
      .tag(99, WireType.LengthDelimited)
      .bytes(Buffer.alloc(1_000_000))
      .finish();
    expect(parseCertificateRequest(Buffer.concat([requestBytes({}), unknown]))).toMatchObject({
      csrPem: CSR,
    });
  });
});

describe('metadata', () => {
  test('is a google.protobuf.Struct, as the reference codec writes and reads it', () => {
    const json = {
      CertSigner: 'signer1',
      number: 1,
      yes: true,
      nothing: null,
      list: ['a', [1]],
      deep: { a: { b: 'c' } },
      '': '',
    };
    const want = new Map<string, string | undefined>(
      Object.entries(json).map(([name, value]) => [
        name,
        typeof value === 'string' ? value : undefined,
      ]),
    );
    expect(parseStruct(toBinary(StructSchema, fromJson(StructSchema, json)), 'metadata')).toEqual(
      want,
    );
    const texts = new Map([
      ['a', 'b'],
      ['', '世界'],
    ]);
    expect(encodeStruct(texts)).toEqual(
      Buffer.from(toBinary(StructSchema, fromJson(StructSchema, Object.fromEntries(texts)))),
    );
  });

  /** A Struct in a Struct in a Struct, or lists for values. */
  function nested(depth: number, kind: 'struct' | 'list'): Uint8Array {
    let bytes: Uint8Array = encodeStruct(new Map([['end', 'x']]));
    for (let level = 0; level < depth; level += 1) {
      const value = new BinaryWriter()
        .tag(kind === 'struct' ? 5 : 6, WireType.LengthDelimited)
        .bytes(bytes)
        .finish();
      const list = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(value).finish();
      const entry = new BinaryWriter()
        .tag(1, WireType.LengthDelimited)
        .string('a')
        .tag(2, WireType.LengthDelimited)
        .bytes(value)
        .finish();
      bytes =
        kind === 'list' && level < depth - 1
          ? list
          : new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(entry).finish();
    }
    return bytes;
  }

  test.each(['struct', 'list'] as const)(
    'A46 that nests ten thousand times as %s is refused at once',
    (kind) => {
      const bytes = requestBytes({ metadata: Buffer.from(nested(10_000, kind)) });
      const startedAt = cpuMs();
      expect(outcome(() => parseCertificateRequest(bytes))).toEqual({
        field: 'metadata',
        rule: 'must not nest deeper than 16 levels',
      });
      expect(cpuMs() - startedAt).toBeLessThan(500);
    },
  );

  test.each(['__proto__', 'constructor', 'prototype'])(
    'A46 with the name %s is refused at any depth, and no object changes',
    (name) => {
      const before = Object.getOwnPropertyNames(Object.prototype);
      const plain = encodeStruct(new Map([[name, 'x']]));
      const value = new BinaryWriter().tag(5, WireType.LengthDelimited).bytes(plain).finish();
      const entry = new BinaryWriter()
        .tag(1, WireType.LengthDelimited)
        .string('a')
        .tag(2, WireType.LengthDelimited)
        .bytes(value)
        .finish();
      const deeper = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(entry).finish();
      for (const metadata of [plain, deeper]) {
        expect(outcome(() => parseStruct(metadata, 'metadata'))).toEqual({
          field: 'metadata',
          rule: `must not have the name ${name}`,
        });
      }
      expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
      expect(({} as { polluted?: string }).polluted).toBeUndefined();
    },
  );

  test.each<[string, Uint8Array, string]>([
    [
      '65 names',
      encodeStruct(new Map(Array.from({ length: 65 }, (_, n) => [`n${n}`, '']))),
      'must not have more than 64 names',
    ],
    ['a group', Buffer.from([0x0b, 0x0c]), 'must not contain groups'],
    ['half an entry', Buffer.from([0x0a, 0x05, 0x0a]), 'must be a well-formed protobuf Struct'],
  ])('with %s is refused', (_, bytes, rule) => {
    expect(outcome(() => parseStruct(bytes, 'metadata'))).toEqual({ field: 'metadata', rule });
  });
});

describe('a reply', () => {
  test('reads as it was written', () => {
    expect(parseCertificateReply(encodeCertificateReply(['a', 'b\nc']))).toEqual(['a', 'b\nc']);
  });

  test.each<[string, Uint8Array, string]>([
    ['nothing', Buffer.alloc(0), 'must hold at least one certificate'],
    [
      '257 elements',
      encodeCertificateReply(Array(257).fill('x')),
      'must not hold more than 256 elements',
    ],
    [
      'more than a mebibyte',
      encodeCertificateReply(['x'.repeat(MAX_MESSAGE_BYTES)]),
      'must not be longer than 1048576 bytes',
    ],
    [
      'half a message',
      encodeCertificateReply(['abc']).subarray(0, 3),
      'must be a well-formed protobuf message',
    ],
  ])('of %s is refused', (_, bytes, rule) => {
    expect(outcome(() => parseCertificateReply(bytes))).toEqual({ field: 'reply', rule });
  });
});

test('no bytes whatever make a reader of messages throw anything but a refusal', () => {
  const valid = encodeCertificateRequest({
    csrPem: CSR,
    ttlSeconds: 60,
    metadata: new Map([['CertSigner', 'x']]),
  });
  const mutated = fc
    .tuple(fc.nat(valid.length - 1), fc.nat(255), fc.nat(valid.length))
    .map(([at, byte, length]) => {
      const bytes = Buffer.from(valid);
      bytes[at] = byte;
      return bytes.subarray(0, length);
    });
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 200 })), (bytes) => {
      for (const read of [
        parseCertificateRequest,
        parseCertificateReply,
        (each: Uint8Array) => parseStruct(each, 'metadata'),
      ]) {
        try {
          read(bytes);
        } catch (caught) {
          if (!(caught instanceof AgentError && caught.code === 'ERR_PARSE')) throw caught;
        }
      }
    }),
    { numRuns: 10_000 },
  );
});
