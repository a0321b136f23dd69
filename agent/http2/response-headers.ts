import type { Field } from './hpack';
import { Http2Error } from './http2-error';
import { assertField } from './request-headers';

/** The fields of one response. */
export interface ResponseHeaders {
  /** Of HTTP, three digits. */
  readonly status: number;
  /** Those that are no pseudo-headers, in order. */
  readonly fields: readonly Field[];
}

/**
 * Reads the fields of a response.
 *
 * @throws Http2Error PROTOCOL_ERROR for the stream: it is malformed (RFC 9113 section 8.1.1).
 */
export function parseResponseHeaders(stream: number, fields: readonly Field[]): ResponseHeaders {
  const [first, ...rest] = fields;
  if (first?.[0] !== ':status' || !/^[1-9]\d{2}$/.test(first[1]))
    throw new Http2Error('PROTOCOL_ERROR', ':status must come first, in three digits', stream);
  for (const [name, value] of rest) {
    if (name.startsWith(':'))
      throw new Http2Error('PROTOCOL_ERROR', 'a response has no other pseudo-header', stream);
    assertField(stream, name, value);
  }
  return { status: Number(first[1]), fields: rest };
}
