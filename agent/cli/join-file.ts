import { AgentError, invalid } from '../base/errors';
import { iso } from '../base/iso';
import { Secret } from '../base/secret';
import { addresses, spiffeId, type ValueType, word } from '../config/value-types';
import { certificatesPem, parseRootBundle } from '../identity/certificate';
import { joinTokenHash } from '../identity/join-token';

/** What a machine needs to get its first certificate, in one file that travels from the authority to it. */
export interface JoinFile {
  readonly spiffeId: string;
  /** `host:port` of the authority. */
  readonly caAddress: string;
  /** What its certificate is for, where that is not the host of the address. */
  readonly caServerName: string | undefined;
  /** By which the authority and its certificates are judged. */
  readonly rootsPem: Buffer;
  readonly token: Secret<string>;
  /** Of the token. Epoch milliseconds. */
  readonly expiresAt: number;
}

/** A file of ten roots has 20 KiB. */
export const MAX_JOIN_FILE_BYTES = 256 * 1024;
const VERSION = 1;
const NAMES = [
  'version',
  'spiffeId',
  'caAddress',
  'caServerName',
  'roots',
  'token',
  'expiresAt',
] as const;
type Name = (typeof NAMES)[number];
/** A member of a later version is named; what is longer than names are may be a piece of the token. */
const MAX_SHOWN_NAME = 15;
const hostName = word('name', 'host name');
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** The inverse of `parseJoinFile`. It holds the token: mode 0600, and short ways. */
export function formatJoinFile(file: JoinFile): Buffer {
  const { caServerName } = file;
  const members: Record<Name, unknown> = {
    version: VERSION,
    spiffeId: file.spiffeId,
    caAddress: file.caAddress,
    caServerName,
    roots: file.rootsPem.toString('latin1'),
    token: file.token.reveal(),
    expiresAt: iso(file.expiresAt),
  };
  return Buffer.from(`${JSON.stringify(members, null, 2)}\n`);
}

/**
 * Reads a join file. Nothing that it says is a path, and every member is read as strictly as a flag.
 *
 * @throws AgentError ERR_INPUT, ERR_PARSE, ERR_CONFIG or ERR_IDENTITY_INVALID naming the member, never the token.
 */
export function parseJoinFile(bytes: Uint8Array): JoinFile {
  const members = readMembers(bytes);
  const text = (name: Name): string => {
    const value = members[name];
    if (typeof value !== 'string')
      throw invalid(
        'ERR_INPUT',
        field(name),
        value === undefined ? 'is missing' : 'must be a string',
      );
    return value;
  };
  if (members.version !== VERSION) {
    const rule =
      members.version === undefined ? 'is missing: this is no join file' : `must be ${VERSION}`;
    throw invalid('ERR_INPUT', field('version'), rule, {
      hint: 'keyturn vm bundle makes join files; is its keyturn newer than this one?',
    });
  }
  return {
    spiffeId: unquoted(spiffeId, 'a SPIFFE ID', text('spiffeId'), 'spiffeId'),
    caAddress: oneAddress(text('caAddress')),
    caServerName:
      members.caServerName === undefined
        ? undefined
        : unquoted(hostName, 'a host name', text('caServerName'), 'caServerName'),
    rootsPem: readRoots(text('roots')),
    token: readToken(text('token')),
    expiresAt: readInstant(text('expiresAt')),
  };
}

const field = (name: Name) => `join file: ${name}`;

const shownName = (name: string) =>
  name.length > MAX_SHOWN_NAME ? `a name of ${name.length} characters` : name;

function readMembers(bytes: Uint8Array): Partial<Record<Name, unknown>> {
  if (bytes.length > MAX_JOIN_FILE_BYTES)
    throw invalid('ERR_INPUT', 'join file', `must not be larger than ${MAX_JOIN_FILE_BYTES} bytes`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    // What the parser says may quote the token.
    throw invalid('ERR_INPUT', 'join file', 'must be JSON, as keyturn vm bundle writes it');
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    throw invalid('ERR_INPUT', 'join file', 'must be an object');
  const unknown = Object.keys(parsed).find((name) => !NAMES.some((each) => each === name));
  if (unknown !== undefined)
    throw invalid('ERR_INPUT', `join file: ${shownName(unknown)}`, 'is an unknown field');
  return parsed;
}

/** The rules of flags quote what they refuse. In a damaged file that may be a piece of the token, so nothing of it is quoted. */
function unquoted<T>({ parse }: ValueType<T>, what: string, text: string, name: Name): T {
  try {
    return parse(text, field(name));
  } catch (caught) {
    const { code, hint } = AgentError.from(caught);
    throw invalid(code, field(name), `must be ${what}`, hint === undefined ? {} : { hint });
  }
}

function oneAddress(text: string): string {
  const [address, ...more] = unquoted(addresses, 'host:port', text, 'caAddress');
  if (more.length > 0) throw invalid('ERR_INPUT', field('caAddress'), 'must be one address');
  return address!;
}

/** Written anew, so that nothing but certificates gets into the file that will judge others. */
function readRoots(text: string): Buffer {
  const { bundle, skipped } = parseRootBundle(Buffer.from(text, 'latin1'), field('roots'));
  if (skipped[0] !== undefined) throw new AgentError('ERR_PARSE', skipped[0]);
  return certificatesPem(bundle.rootsDer);
}

function readToken(text: string): Secret<string> {
  const token = new Secret(text);
  if (joinTokenHash(token) === undefined)
    throw invalid('ERR_INPUT', field('token'), 'must be a join token');
  return token;
}

function readInstant(text: string): number {
  const at = ISO.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at))
    throw invalid(
      'ERR_INPUT',
      field('expiresAt'),
      'must be an instant, e.g. 2026-01-02T03:04:05.000Z',
    );
  return at;
}

/** @throws AgentError ERR_INPUT. */
export function checkNotExpired({ expiresAt }: JoinFile, now: number): void {
  if (now < expiresAt) return;
  throw invalid(
    'ERR_INPUT',
    field('expiresAt'),
    `was ${iso(expiresAt)}, and it is ${iso(now)} now`,
    {
      hint: 'create another one with keyturn vm bundle; or is the clock of this machine wrong?',
    },
  );
}
