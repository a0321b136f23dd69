import { Metadata, status } from '@grpc/grpc-js';
import { describe, expect, test } from '@jest/globals';
import { CallFailure } from '../../../../ca-client/istio/channel';
import { refusal } from '../../../../ca-client/istio/status';
import { RetryInfo } from '../../../../ca-client/proto/generated/google/rpc/error_details';
import { Status } from '../../../../ca-client/proto/generated/google/rpc/status';

const context = {
  ca: 'istiod',
  address: 'istiod:15012',
  token: undefined,
  hint: undefined,
  isBlameless: false,
};

function failure(
  code: number,
  details = '',
  trailers: Record<string, string | Buffer> = {},
  headers: Record<string, string> = {},
  unreachable?: string,
) {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(trailers)) metadata.set(name, value);
  const before = new Metadata();
  for (const [name, value] of Object.entries(headers)) before.set(name, value);
  return new CallFailure(code, details, metadata, before, undefined, true, unreachable);
}

function retryInfo(seconds: bigint, nanos: number): Buffer {
  const value = RetryInfo.encode({ retryDelay: { seconds, nanos } }).finish();
  const detail = { typeUrl: 'type.googleapis.com/google.rpc.RetryInfo', value: Buffer.from(value) };
  const other = { typeUrl: 'type.googleapis.com/google.rpc.Help', value: Buffer.from([1, 2, 3]) };
  return Buffer.from(
    Status.encode({ code: 8, message: 'slow down', details: [other, detail] }).finish(),
  );
}

describe('a status of the CA', () => {
  test.each([
    ['CANCELLED', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['UNKNOWN', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['DEADLINE_EXCEEDED', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['RESOURCE_EXHAUSTED', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['ABORTED', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['INTERNAL', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['UNAVAILABLE', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['DATA_LOSS', 'ERR_CA_UNAVAILABLE', 'soon'],
    ['UNAUTHENTICATED', 'ERR_CA_REJECTED', 'slow'],
    ['INVALID_ARGUMENT', 'ERR_CA_REJECTED', 'slow'],
    ['PERMISSION_DENIED', 'ERR_CA_REJECTED', 'slow'],
    ['UNIMPLEMENTED', 'ERR_CA_REJECTED', 'slow'],
    ['NOT_FOUND', 'ERR_CA_REJECTED', 'slow'],
    ['ALREADY_EXISTS', 'ERR_CA_REJECTED', 'slow'],
    ['FAILED_PRECONDITION', 'ERR_CA_REJECTED', 'slow'],
    ['OUT_OF_RANGE', 'ERR_CA_REJECTED', 'slow'],
  ] as const)('%s is %s, to be tried again %s', (name, code, retry) => {
    expect(refusal(failure(status[name], 'why'), context)).toMatchObject({
      code,
      retry,
      message: `sign at istiod: istiod:15012 answered ${name}: why`,
    });
  });

  test('field: UNAUTHENTICATED for what is blameless may be an outage, other refusals are what they say', () => {
    const retries = (['UNAUTHENTICATED', 'PERMISSION_DENIED', 'INVALID_ARGUMENT'] as const).map(
      (name) => refusal(failure(status[name]), { ...context, isBlameless: true }).retry,
    );
    expect(retries).toEqual(['unsure', 'slow', 'slow']);
  });

  test('of a number that nobody knows is an outage like any other', () => {
    expect(refusal(failure(99), context)).toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      retry: 'soon',
      message: expect.stringContaining('status 99'),
    });
  });

  test.each<[string, Record<string, string | Buffer>, Record<string, string>, number | undefined]>([
    ['grpc-retry-pushback-ms', { 'grpc-retry-pushback-ms': '1500' }, {}, 1_500],
    ['RetryInfo', { 'grpc-status-details-bin': retryInfo(2n, 500_000_000) }, {}, 2_500],
    ['a retry-after of a proxy', {}, { 'retry-after': '30' }, 30_000],
    ['more than a day', { 'grpc-retry-pushback-ms': '999999999999' }, {}, 86_400_000],
    ['a RetryInfo of less than nothing', { 'grpc-status-details-bin': retryInfo(-5n, 0) }, {}, 0],
    ['nothing', {}, {}, undefined],
    [
      'details that are none',
      { 'grpc-status-details-bin': Buffer.from([255, 255]) },
      {},
      undefined,
    ],
    [
      'a retry-after that is a date',
      {},
      { 'retry-after': 'Wed, 21 Oct 2026 07:28:00 GMT' },
      undefined,
    ],
  ])('C18 with %s says when to come back', (_, trailers, headers, retryAfterMs) => {
    expect(
      refusal(failure(status.RESOURCE_EXHAUSTED, '', trailers, headers), context),
    ).toMatchObject({ retry: 'soon', retryAfterMs });
  });

  test.each(['-1', 'never', ''])(
    'C18 with a push-back of "%s" wants no retry, and gets a slow one',
    (value) => {
      const error = refusal(
        failure(status.UNAVAILABLE, '', { 'grpc-retry-pushback-ms': value }),
        context,
      );
      expect([error.retry, error.retryAfterMs]).toEqual(['slow', undefined]);
    },
  );

  test('is shown without the token, and not at any length', () => {
    const { message } = refusal(failure(status.UNKNOWN, `secret ${'x'.repeat(5_000)}`), {
      ...context,
      token: 'secret',
    });
    expect(message).toContain('UNKNOWN: [redacted] xxx');
    expect(message.length).toBeLessThan(400);
  });

  test.each(['connect ECONNREFUSED 127.0.0.1:1', 'getaddrinfo ENOTFOUND ca.invalid'])(
    'that nobody gave says so: %s',
    (words) => {
      expect(refusal(failure(status.UNAVAILABLE, words, {}, {}, words), context)).toMatchObject({
        code: 'ERR_CA_UNAVAILABLE',
        retry: 'soon',
        message: `sign at istiod: istiod:15012 is unreachable: ${words}`,
        hint: 'is the address of the CA (--ca-address) right, and does it listen there',
      });
    },
  );

  test('C12 that is gRPC’s own about too long a reply is a bad reply', () => {
    expect(
      refusal(
        failure(status.RESOURCE_EXHAUSTED, 'Received message larger than max (9 vs 1)'),
        context,
      ),
    ).toMatchObject({
      code: 'ERR_CA_RESPONSE',
      retry: 'slow',
      field: 'reply',
    });
  });
});
