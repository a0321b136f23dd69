import { type DerElement, DerReader, derElement, derSequence, derTime, TAG } from '../base/der';
import type { AgentError } from '../base/errors';
import { eachOf, type Steps } from '../base/steps';
import { MAX_CRL_ENTRIES, MAX_ENTRY_BYTES } from './crl-bounds';
import { encodeExtension, readExtensions } from './extensions';

/** One certificate that must not be believed any more. */
export interface RevokedSerial {
  /** Lower-case hex. */
  readonly serial: string;
  /** Epoch milliseconds. */
  readonly revokedAt: number;
  /** CRLReason; 0 (unspecified) is not written, as RFC 5280 section 5.3.1 wishes. */
  readonly reason: number;
}

/**
 * The serial numbers of a list, as places in its bytes: half a million as strings would take more memory than the rest of an agent. Plain
 * data, so that another thread may make it.
 */
export interface RevokedSerials {
  /** Different ones. */
  readonly size: number;
  /** The list. */
  readonly der: Uint8Array;
  /** By hash, with linear probing: one more than where an INTEGER begins in `der`, or 0. Its length is a power of two. */
  readonly table: Uint32Array;
}

const REASON_CODE = '2.5.29.21';
const ENUMERATED = 0x0a;
/** The extensions of an entry with a reason code, which is its last octet. */
const REASON = derSequence(
  encodeExtension(REASON_CODE, false, derElement(ENUMERATED, Buffer.of(0))),
);
const PER_STEP = 2_000;
const READ_PER_STEP = 256;
/** What is longer is the number of no certificate that is accepted anywhere here. */
const MAX_SERIAL_OCTETS = 21;

/** The entries of a list in one piece, without the SEQUENCE around them. */
export function* encodeEntries(revoked: readonly RevokedSerial[]): Steps<Buffer> {
  const out = Buffer.allocUnsafe(revoked.length * MAX_ENTRY_BYTES);
  let length = 0;
  // Of what was revoked together all have the same.
  let [at, time]: [number, Buffer] = [Number.NaN, Buffer.alloc(0)];
  yield* eachOf(revoked, PER_STEP, (each) => {
    if (each.revokedAt !== at) [at, time] = [each.revokedAt, derTime(each.revokedAt)];
    length = writeEntry(out, length, each, time);
  });
  return out.subarray(0, length);
}

function writeEntry(
  out: Buffer,
  at: number,
  { serial, reason }: RevokedSerial,
  time: Buffer,
): number {
  const octets = serial.length / 2;
  const padded = Number.parseInt(serial.slice(0, 2), 16) >= 0x80 ? 1 : 0;
  const length = 2 + padded + octets + time.length + (reason === 0 ? 0 : REASON.length);
  let next = at;
  out[next++] = TAG.sequence;
  out[next++] = length;
  out[next++] = TAG.integer;
  out[next++] = padded + octets;
  if (padded === 1) out[next++] = 0;
  next += out.write(serial, next, 'hex');
  next += time.copy(out, next);
  if (reason === 0) return next;
  next += REASON.copy(out, next);
  // The last octet of it.
  out[next - 1] = reason;
  return next;
}

export interface ReadEntries {
  readonly revoked: RevokedSerials;
  /** For an entry with a critical extension: Envoy knows none. */
  readonly refusal: AgentError | undefined;
}

/**
 * Reads the entries of a list.
 *
 * @param listed  Within `der`; undefined where there are none.
 * @throws        AgentError ERR_PARSE: grammar, more than there may be.
 */
export function* readEntries(
  listed: DerElement | undefined,
  der: Uint8Array,
  field: string,
): Steps<ReadEntries> {
  const places: number[] = [];
  let refusal: AgentError | undefined;
  const reader = listed && new DerReader(der, field, listed.contentAt, listed.endAt);
  for (let count = 0; reader && !reader.atEnd; count += 1) {
    if (count === MAX_CRL_ENTRIES)
      throw reader.refuse(
        'revoked certificates',
        `must not hold more than ${MAX_CRL_ENTRIES} items`,
      );
    if (count % READ_PER_STEP === 0) yield;
    const { place, critical } = readEntry(reader);
    if (place !== undefined) places.push(place);
    if (critical !== undefined)
      refusal ??= reader.refuse(
        'revoked certificate',
        `must not have the critical extension ${critical}`,
      );
  }
  const table = new Uint32Array(2 ** Math.ceil(Math.log2(Math.max(places.length * 2, 2))));
  let size = 0;
  yield* eachOf(places, PER_STEP, (place) => {
    if (insert(der, table, place)) size += 1;
  });
  return { revoked: { size, der, table }, refusal };
}

/** Whether a list names a serial number, lower-case hex. */
export function isListed({ der, table }: RevokedSerials, serial: string): boolean {
  const wanted = Buffer.from(serial, 'hex');
  return table[slotOf(der, table, wanted)] !== 0;
}

/** `place`: where the INTEGER begins; undefined for one that is too long to be a certificate's. `critical`: the OID of such an extension. */
function readEntry(reader: DerReader): {
  readonly place: number | undefined;
  readonly critical: string | undefined;
} {
  return reader.sequence('revoked certificate', (inner) => {
    const place = inner.at;
    const serial = inner.integer('serial number');
    inner.time('revocation date');
    const extensions = inner.atEnd ? [] : readExtensions(inner);
    const critical = extensions.find((each) => each.critical)?.oid;
    return { place: serial.length > MAX_SERIAL_OCTETS ? undefined : place, critical };
  });
}

/** The octets of the INTEGER at a place, without the zero before a high bit. */
function serialAt(der: Uint8Array, place: number): Uint8Array {
  const length = der[place + 1]!;
  const content = der.subarray(place + 2, place + 2 + length);
  return length > 1 && content[0] === 0 ? content.subarray(1) : content;
}

/** @returns Whether it was not there before. */
function insert(der: Uint8Array, table: Uint32Array, place: number): boolean {
  const slot = slotOf(der, table, serialAt(der, place));
  if (table[slot] !== 0) return false;
  table[slot] = place + 1;
  return true;
}

/** Where a serial number is, or would be. */
function slotOf(der: Uint8Array, table: Uint32Array, serial: Uint8Array): number {
  const mask = table.length - 1;
  for (let slot = hashOf(serial) & mask; ; slot = (slot + 1) & mask) {
    const found = table[slot]!;
    if (found === 0 || Buffer.compare(serialAt(der, found - 1), serial) === 0) return slot;
  }
}

/** FNV-1a. */
function hashOf(octets: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const octet of octets) hash = Math.imul(hash ^ octet, 0x01000193);
  return hash >>> 0;
}
