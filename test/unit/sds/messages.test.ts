import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AgentError } from '../../../agent/base/errors';
import { LIMITS } from '../../../sds/grpc/limits';
import { parseDeltaRequest, parseSotwRequest } from '../../../sds/secrets/messages';
import { cpuMs } from '../../support/load';
import { deltaRequest, sotwRequest } from '../../support/sds-client';

const RUNS = process.env.KEYTURN_TEST === 'full' ? 200_000 : 10_000;

describe('a request', () => {
  test('is read without duplicates, with the words of its refusal and who asks', () => {
    const bytes = sotwRequest(['default', 'ROOTCA', 'default'], {
      nonce: 'n',
      error: 'mismatch',
      node: 'sidecar~1',
    });
    expect(parseSotwRequest(bytes)).toEqual({
      names: ['default', 'ROOTCA'],
      nonce: 'n',
      error: 'mismatch',
      node: 'sidecar~1',
    });
  });

  test.each<
    [
      string,
      (options: { error: string; node: string }) => {
        readonly node: string;
        readonly error: string | undefined;
      },
    ]
  >([
    ['state of the world', (options) => parseSotwRequest(sotwRequest(['default'], options))],
    ['delta', (options) => parseDeltaRequest(deltaRequest({ subscribe: ['default'], ...options }))],
  ])('of the %s is cut in the words of its refusal and in who asks', (_, read) => {
    expect(read({ error: 'e'.repeat(1_000), node: 'n'.repeat(200) })).toMatchObject({
      error: 'e'.repeat(1_000),
      node: 'n'.repeat(200),
    });
    expect(read({ error: 'e'.repeat(1_001), node: 'n'.repeat(201) })).toMatchObject({
      error: 'e'.repeat(1_000),
      node: 'n'.repeat(200),
    });
  });

  test('D16 may come without a node and without a type', () => {
    expect(parseSotwRequest(sotwRequest(['default'], { typeUrl: '' }))).toMatchObject({
      names: ['default'],
      node: '',
      error: undefined,
    });
    expect(parseSotwRequest(new Uint8Array())).toEqual({
      names: [],
      nonce: '',
      error: undefined,
      node: '',
    });
  });

  test('D22 may carry a version of any length: it is not read', () => {
    expect(
      parseSotwRequest(sotwRequest(['default'], { version: 'v'.repeat(400_000) })).names,
    ).toEqual(['default']);
  });

  test('of delta is read with the versions that it brings', () => {
    const bytes = deltaRequest({
      subscribe: ['a'],
      unsubscribe: ['b'],
      versions: { a: '1' },
      nonce: 'n',
      node: 'x',
    });
    expect(parseDeltaRequest(bytes)).toEqual({
      subscribe: ['a'],
      unsubscribe: ['b'],
      versions: new Map([['a', '1']]),
      nonce: 'n',
      error: undefined,
      node: 'x',
    });
  });

  test('has fields that nobody here knows, which are skipped', () => {
    // Field 15, a string of three bytes.
    const bytes = Buffer.concat([Buffer.from([15 * 8 + 2, 3, 1, 2, 3]), sotwRequest(['default'])]);
    expect(parseSotwRequest(bytes).names).toEqual(['default']);
  });

  test.each([
    [
      'another type',
      sotwRequest(['default'], { typeUrl: 'type.googleapis.com/istio.v1.HealthInformation' }),
      'type_url',
    ],
    [
      'too many names',
      sotwRequest([...Array(LIMITS.namesPerStream + 1)].map((_, index) => String(index))),
      'resource_names',
    ],
    ['too long a name', sotwRequest(['n'.repeat(LIMITS.nameBytes + 1)]), 'resource_names'],
    ['a cut message', sotwRequest(['default']).subarray(0, -3), 'discovery request'],
    ['a stray end of group', Buffer.from([0x0c, 0x0c]), 'discovery request'],
    ['groups without end', Buffer.alloc(LIMITS.requestBytes, 0x7b), 'discovery request'],
    ['an overlong varint', Buffer.alloc(20, 0xff), 'discovery request'],
    [
      'a length beyond its end',
      Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]),
      'discovery request',
    ],
  ])('with %s is refused by its field', (_what, bytes, field) => {
    expect(() => parseSotwRequest(bytes)).toThrow(
      expect.objectContaining({ code: 'ERR_PARSE', field, rule: expect.any(String) }),
    );
  });

  test('of delta that brings too many versions is refused', () => {
    const versions = Object.fromEntries(
      [...Array(LIMITS.namesPerStream + 1)].map((_, index) => [`n${index}`, 'v']),
    );
    expect(() => parseDeltaRequest(deltaRequest({ versions }))).toThrow(
      expect.objectContaining({ code: 'ERR_PARSE', field: 'initial_resource_versions' }),
    );
  });
});

const SEEDS = [
  sotwRequest(['n'.repeat(LIMITS.nameBytes), 'default', 'default'], {
    error: 'e'.repeat(1_000),
    node: 'n'.repeat(200),
  }),
  sotwRequest(['default', 'ROOTCA', 'file-cert:/etc/certs/cert.pem~/etc/certs/key.pem'], {
    nonce: 'a-1-1',
    version: 'v',
    error: 'no',
    node: 'n',
  }),
  deltaRequest({
    subscribe: ['default'],
    unsubscribe: ['ROOTCA'],
    versions: { default: 'v', x: 'y' },
    nonce: 'a-1-1',
    error: 'no',
    node: 'n',
  }),
];

/** One change of a message: a byte set, bytes cut out, put in, or repeated. */
const mutation = fc.record({
  kind: fc.constantFrom('set', 'cut', 'insert', 'repeat', 'truncate'),
  at: fc.nat(),
  byte: fc.integer({ min: 0, max: 255 }),
  length: fc.integer({ min: 1, max: 32 }),
});

function mutate(
  bytes: Uint8Array,
  { kind, at, byte, length }: { kind: string; at: number; byte: number; length: number },
): Buffer {
  const index = at % (bytes.length + 1);
  const [before, after] = [bytes.subarray(0, index), bytes.subarray(index)];
  if (kind === 'set') return Buffer.concat([before, Buffer.from([byte]), after.subarray(1)]);
  if (kind === 'cut') return Buffer.concat([before, after.subarray(length)]);
  if (kind === 'insert') return Buffer.concat([before, Buffer.alloc(length, byte), after]);
  if (kind === 'repeat') return Buffer.concat([before, after.subarray(0, length), after]);
  return Buffer.from(before);
}

describe.each([
  ['state-of-the-world', parseSotwRequest],
  ['delta', parseDeltaRequest],
])('a mutated %s request', (_kind, parse) => {
  test('is read within its limits or refused by field and rule, and never anything else', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...SEEDS),
        fc.array(mutation, { minLength: 1, maxLength: 4 }),
        (seed, mutations) => {
          const bytes = mutations.reduce<Uint8Array>(mutate, seed);
          let request: ReturnType<typeof parse>;
          try {
            request = parse(bytes);
          } catch (caught) {
            expect(caught).toBeInstanceOf(AgentError);
            expect(caught).toMatchObject({
              code: 'ERR_PARSE',
              field: expect.any(String),
              rule: expect.any(String),
            });
            return;
          }
          const { nonce, node, error, ...rest } = request;
          expect(nonce).toEqual(expect.any(String));
          expect(node.length).toBeLessThanOrEqual(200);
          expect(error?.length ?? 0).toBeLessThanOrEqual(1_000);
          for (const each of Object.values(rest) as (
            | readonly string[]
            | ReadonlyMap<string, string>
          )[]) {
            const names = [...each.keys()].map(String);
            expect(names.length).toBeLessThanOrEqual(LIMITS.namesPerStream);
            if (!Array.isArray(each)) continue;
            expect(new Set(each).size).toBe(each.length);
            for (const name of each)
              expect(Buffer.byteLength(name)).toBeLessThanOrEqual(LIMITS.nameBytes);
          }
        },
      ),
      { numRuns: RUNS },
    );
  });

  test('is judged in time that grows with its length alone', () => {
    const worst = [
      Buffer.alloc(LIMITS.requestBytes, 0x7b),
      Buffer.alloc(LIMITS.requestBytes, 0x1a),
      Buffer.alloc(LIMITS.requestBytes, 0x12),
    ];
    for (const bytes of worst) {
      const begun = cpuMs();
      try {
        parse(bytes);
      } catch (caught) {
        expect(caught).toMatchObject({ code: 'ERR_PARSE' });
      }
      expect(cpuMs() - begun).toBeLessThan(1_000);
    }
  });
});
