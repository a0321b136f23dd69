import { type Field, listBytes } from './hpack';
import { Http2Error } from './http2-error';

/** The fields of one request. */
export interface RequestHeaders {
  readonly method: string;
  readonly path: string;
  /** Of all fields, as RFC 9113 section 6.5.2 counts them. */
  readonly bytes: number;
  /** Octets of the body as the client announced them; undefined where it did not. */
  readonly contentLength: number | undefined;
  /** Every value of a field, in order; its name in lower case. */
  values(name: string): readonly string[];
}

/** Those of a connection, which HTTP/2 has none of (RFC 9113 section 8.2.2). */
const OF_A_CONNECTION = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);
const PSEUDO = new Set([':method', ':scheme', ':path', ':authority']);
const NAME = /^:?[!#$%&'*+\-.^_`|~0-9a-z]+$/;

/**
 * Reads the fields of a request. `:authority` may be anything or missing: on a Unix socket it names nothing, and clients put into it
 * what they like (grpc-java the path of the socket, grpc-go `localhost`).
 *
 * @throws Http2Error PROTOCOL_ERROR for the stream: it is malformed (RFC 9113 section 8.1.1).
 */
export function parseRequestHeaders(stream: number, fields: readonly Field[]): RequestHeaders {
  const pseudo = new Map<string, string>();
  const malformed = (rule: string) => new Http2Error('PROTOCOL_ERROR', rule, stream);
  let regular = false;
  for (const [name, value] of fields) {
    assertField(stream, name, value);
    if (!name.startsWith(':')) {
      regular = true;
      continue;
    }
    if (regular) throw malformed('pseudo-headers must come first');
    if (!PSEUDO.has(name)) throw malformed('a pseudo-header must be one of requests');
    if (pseudo.has(name)) throw malformed(`${name} must be given once`);
    pseudo.set(name, value);
  }
  const [method, scheme, path] = [
    pseudo.get(':method'),
    pseudo.get(':scheme'),
    pseudo.get(':path'),
  ];
  if (method === undefined || scheme === undefined || !path)
    throw malformed(':method, :scheme and :path must be there');
  return {
    method,
    path,
    bytes: listBytes(fields),
    contentLength: contentLengthOf(stream, fields),
    values: (wanted) => fields.filter(([name]) => name === wanted).map(([, value]) => value),
  };
}

/** @throws Http2Error PROTOCOL_ERROR for the stream: trailers hold none but regular fields (RFC 9113 section 8.1). */
export function assertTrailers(stream: number, fields: readonly Field[]): void {
  for (const [name, value] of fields) {
    if (name.startsWith(':'))
      throw new Http2Error('PROTOCOL_ERROR', 'trailers must not hold pseudo-headers', stream);
    assertField(stream, name, value);
  }
}

function contentLengthOf(stream: number, fields: readonly Field[]): number | undefined {
  const said = new Set(
    fields.filter(([name]) => name === 'content-length').map(([, value]) => value),
  );
  const [length] = said;
  if (length === undefined) return undefined;
  if (said.size > 1 || !/^\d{1,15}$/.test(length))
    throw new Http2Error('PROTOCOL_ERROR', 'content-length must be one number', stream);
  return Number(length);
}

/** @throws Http2Error PROTOCOL_ERROR for the stream: no field of HTTP/2 (RFC 9113 section 8.2). */
export function assertField(stream: number, name: string, value: string): void {
  if (!NAME.test(name))
    throw new Http2Error('PROTOCOL_ERROR', 'header names must be lower-case tokens', stream);
  if (/[\0\r\n]/.test(value))
    throw new Http2Error('PROTOCOL_ERROR', 'header values must not hold line ends or NUL', stream);
  if (OF_A_CONNECTION.has(name) || (name === 'te' && value !== 'trailers')) {
    throw new Http2Error('PROTOCOL_ERROR', `the header ${name} must not be there`, stream);
  }
}
