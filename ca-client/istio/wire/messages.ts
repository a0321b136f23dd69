import { BinaryReader, type BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { AgentError, invalid } from '../../../agent/base/errors';
import {
  IstioCertificateRequest,
  IstioCertificateResponse,
} from '../../proto/generated/istio/v1/auth/ca';
import { MAX_MESSAGE_BYTES } from './service';
import { encodeStruct, parseStruct } from './struct';

/** What CreateCertificate asks for. */
export interface CertificateRequest {
  /** PKCS#10, PEM. */
  readonly csrPem: string;
  /** Zero or less leaves it to the CA; whole seconds within the range of exact numbers, whatever was sent. */
  readonly ttlSeconds: number;
  /** Texts by name, e.g. `CertSigner`. Undefined for what is there but is no text. */
  readonly metadata: ReadonlyMap<string, string | undefined>;
}

/** A CSR for RSA-4096 is 1.6 kB of PEM. */
const MAX_CSR_BYTES = 64 * 1024;
/** Field 1 of IstioCertificateResponse, length-delimited. */
const CERT_CHAIN_TAG = (1 << 3) | 2;
/** Of a varint below 2^31. */
const MAX_LENGTH_OCTETS = 5;
/** Certificates with all the roots of a large mesh. */
const MAX_CHAIN_ELEMENTS = 256;

export function encodeCertificateRequest(request: CertificateRequest): Buffer {
  const { csrPem, ttlSeconds, metadata } = request;
  const texts = new Map([...metadata].map(([name, text]) => [name, text ?? '']));
  const message = {
    csr: csrPem,
    validityDuration: BigInt(Math.round(ttlSeconds)),
    metadata: encodeStruct(texts),
  };
  return finish(IstioCertificateRequest.encode(message));
}

/**
 * Reads a request of anybody's, in time and memory bounded by its size. The CSR's own syntax is not looked at.
 *
 * @throws AgentError ERR_PARSE with `field` (`request`, `csr`, `metadata`) and `rule`.
 */
export function parseCertificateRequest(bytes: Uint8Array): CertificateRequest {
  const { csr, validityDuration, metadata } = decode('request', bytes, IstioCertificateRequest);
  if (csr === '') throw invalid('ERR_PARSE', 'csr', 'must not be empty');
  if (Buffer.byteLength(csr) > MAX_CSR_BYTES)
    throw invalid('ERR_PARSE', 'csr', `must not be longer than ${MAX_CSR_BYTES} bytes`);
  return {
    csrPem: csr,
    ttlSeconds: exact(validityDuration),
    metadata: parseStruct(metadata, 'metadata'),
  };
}

/** Written by hand: a CA does so thousands of times a second, and the generated codec takes ten times as long. */
export function encodeCertificateReply(certChain: readonly string[]): Buffer {
  const lengths = certChain.map((pem) => Buffer.byteLength(pem));
  const out = Buffer.allocUnsafe(
    lengths.reduce((sum, length) => sum + 1 + MAX_LENGTH_OCTETS + length, 0),
  );
  let at = 0;
  for (const [index, pem] of certChain.entries()) {
    out[at++] = CERT_CHAIN_TAG;
    let length = lengths[index]!;
    for (; length > 0x7f; length >>>= 7) out[at++] = (length & 0x7f) | 0x80;
    out[at++] = length;
    at += out.write(pem, at);
  }
  return out.subarray(0, at);
}

/**
 * Reads a reply: PEM texts, each of one certificate or several.
 *
 * @throws AgentError ERR_PARSE with `field` `reply` and `rule`: it is malformed, longer than 1 MiB, or not of 1 to 256 elements.
 */
export function parseCertificateReply(bytes: Uint8Array): readonly string[] {
  const { certChain } = decode('reply', bytes, IstioCertificateResponse);
  if (certChain.length === 0)
    throw invalid('ERR_PARSE', 'reply', 'must hold at least one certificate');
  if (certChain.length > MAX_CHAIN_ELEMENTS)
    throw invalid('ERR_PARSE', 'reply', `must not hold more than ${MAX_CHAIN_ELEMENTS} elements`);
  return certChain;
}

function decode<T>(field: string, bytes: Uint8Array, codec: { decode(input: BinaryReader): T }): T {
  if (bytes.length > MAX_MESSAGE_BYTES)
    throw invalid('ERR_PARSE', field, `must not be longer than ${MAX_MESSAGE_BYTES} bytes`);
  try {
    assertFields(new BinaryReader(bytes), field);
    return codec.decode(new BinaryReader(bytes));
  } catch (caught) {
    if (caught instanceof AgentError) throw caught;
    throw invalid('ERR_PARSE', field, 'must be a well-formed protobuf message', { cause: caught });
  }
}

/** The generated codec takes an end-group tag, or a zero, for the end of the message, which nothing may contain at this level. */
function assertFields(reader: BinaryReader, field: string): void {
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (type === WireType.EndGroup)
      throw invalid('ERR_PARSE', field, 'must not contain a stray end of group');
    reader.skip(type, number);
  }
}

function exact(seconds: bigint): number {
  const most = BigInt(Number.MAX_SAFE_INTEGER);
  return Number(seconds > most ? most : seconds < -most ? -most : seconds);
}

function finish(writer: BinaryWriter): Buffer {
  const bytes = writer.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
