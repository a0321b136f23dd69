import { joinTokenHash } from '../../ca-client/builtin/store/join-tokens';
import { AgentError, invalid } from '../base/errors';
import { Secret } from '../base/secret';
import { addresses, spiffeId, word } from '../config/value-types';
import { certificatesPem, parseRootBundle } from '../identity/certificate';

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
const NAMES = ['version', 'spiffeId', 'caAddress', 'caServerName', 'roots', 'token', 'expiresAt'] as const;
type Name = (typeof NAMES)[number];
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
    expiresAt: new Date(file.expiresAt).toISOString(),
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
    if (typeof value !== 'string') throw invalid('ERR_INPUT', field(name), value === undefined ? 'is missing' : 'must be a string');
    return value;
  };
  if (members.version !== VERSION) {
    const rule = members.version === undefined ? 'is missing: this is no join file' : `must be ${VERSION}`;
    throw invalid('ERR_INPUT', field('version'), rule, { hint: 'keyturn vm bundle makes join files; is its keyturn newer than this one?' });
  }
  return {
    spiffeId: unquoted('spiffeId', text, (value) => spiffeId.parse(value, field('spiffeId'))),
    caAddress: unquoted('caAddress', text, oneAddress),
    caServerName: members.caServerName === undefined ? undefined : unquoted('caServerName', text, serverName),
    rootsPem: readRoots(text('roots')),
    token: readToken(text('token')),
    expiresAt: readInstant(text('expiresAt')),
  };
}

const field = (name: Name) => `join file: ${name}`;

function readMembers(bytes: Uint8Array): Partial<Record<Name, unknown>> {
  if (bytes.length > MAX_JOIN_FILE_BYTES) throw invalid('ERR_INPUT', 'join file', `must not be larger than ${MAX_JOIN_FILE_BYTES} bytes`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    // What the parser says may quote the token.
    throw invalid('ERR_INPUT', 'join file', 'must be JSON, as keyturn vm bundle writes it');
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw invalid('ERR_INPUT', 'join file', 'must be an object');
  const unknown = Object.keys(parsed).find((name) => !NAMES.some((each) => each === name));
  if (unknown !== undefined) throw invalid('ERR_INPUT', `join file: ${unknown.slice(0, 60)}`, 'is no member that this keyturn knows');
  return parsed;
}

/** What refuses a value may quote it, and in a damaged file a piece of the token may have got into it: then the rule is told without it. */
function unquoted<T>(name: Name, text: (name: Name) => string, read: (value: string) => T): T {
  const value = text(name);
  try {
    return read(value);
  } catch (caught) {
    const { code, message, hint } = AgentError.from(caught);
    throw /[\w-]{16}/.test(value) && message.includes(value.slice(-16))
      ? invalid(code, field(name), 'is not in the form that keyturn vm bundle writes', hint === undefined ? {} : { hint })
      : caught;
  }
}

function oneAddress(text: string): string {
  const [address, ...more] = addresses.parse(text, field('caAddress'));
  if (more.length > 0) throw invalid('ERR_INPUT', field('caAddress'), 'must be one address');
  return address!;
}

function serverName(text: string): string {
  return word('name', 'host name').parse(text, field('caServerName'));
}

/** Written anew, so that nothing but certificates gets into the file that will judge others. */
function readRoots(text: string): Buffer {
  const { bundle, skipped } = parseRootBundle(Buffer.from(text, 'latin1'), field('roots'));
  if (skipped[0] !== undefined) throw new AgentError('ERR_PARSE', skipped[0]);
  return certificatesPem(bundle.rootsDer);
}

function readToken(text: string): Secret<string> {
  const token = new Secret(text);
  if (joinTokenHash(token) === undefined) throw invalid('ERR_INPUT', field('token'), 'must be a join token');
  return token;
}

function readInstant(text: string): number {
  const at = ISO.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at)) throw invalid('ERR_INPUT', field('expiresAt'), 'must be an instant, e.g. 2026-01-02T03:04:05.000Z');
  return at;
}

/** @throws AgentError ERR_INPUT. */
export function checkNotExpired({ expiresAt }: JoinFile, now: number): void {
  if (now < expiresAt) return;
  throw invalid('ERR_INPUT', field('expiresAt'), `was ${new Date(expiresAt).toISOString()}, and it is ${new Date(now).toISOString()} now`, {
    hint: 'have another one made with keyturn vm bundle; or is the clock of this machine wrong?',
  });
}
