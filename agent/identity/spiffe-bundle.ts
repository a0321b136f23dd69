import { createPublicKey } from 'node:crypto';
import { invalid } from '../base/errors';
import {
  type Certificate,
  isCa,
  parseCertificate,
  parseCertificates,
  uriNames,
} from './certificate';
import { parsePublicKey } from './public-key';
import { createTrustBundle, type TrustBundle } from './trust-bundle';

/** What certificates and tokens of one trust domain are judged by: the SPIFFE bundle of that trust domain. */
export interface SpiffeBundle {
  readonly trustDomain: string;
  /** Undefined where there are none: then no X.509-SVID of it is to be believed. */
  readonly roots: TrustBundle | undefined;
  /** Keys of its JWT-SVIDs, each with a `kid` of its own; empty where none is to be believed. */
  readonly jwtKeys: readonly JwtKey[];
  /** How often to look again, seconds, as its maker wishes. */
  readonly refreshHintSeconds: number | undefined;
}

/** Bundles of other trust domains, by the names of these. Undefined where nothing is known yet of one that is to be believed. */
export type FederatedBundles = ReadonlyMap<string, SpiffeBundle | undefined>;

/** A public key as a JWK (RFC 7517): of RSA or of an elliptic curve, with its identifier, and nothing else. */
export interface JwtKey {
  readonly kid: string;
  readonly kty: 'RSA' | 'EC';
  readonly n?: string;
  readonly e?: string;
  readonly crv?: string;
  readonly x?: string;
  readonly y?: string;
}

/** Trust domains have a few; a verifier may have to try each of them. */
const MAX_KEYS = 100;
const MAX_KID = 200;
const MAX_HINT_SECONDS = 366 * 24 * 3_600;

/**
 * Reads a bundle: SPIFFE's JSON form, or PEM certificates, which are roots and nothing else.
 *
 * Entries of a use or kind that is unknown here are passed over, as the standard wishes; one that is known and wrong refuses the whole, so
 * that what was good before can stay. An empty list of keys is no fault: it takes back all that was published before.
 *
 * @param field  For errors, e.g. `--federated-bundle example.org`.
 * @throws       AgentError ERR_PARSE with the entry: a root that is no CA or names another trust domain, a private key, two keys of one name.
 * @see SPIFFE Trust Domain and Bundle, section 4; X509-SVID section 6.2; JWT-SVID section 6.2.
 */
export function parseSpiffeBundle(
  bytes: Uint8Array,
  trustDomain: string,
  field: string,
): SpiffeBundle {
  const text = Buffer.from(bytes).toString('utf8');
  if (/^\s*\{/.test(text)) return parseJson(text, trustDomain, field);
  if (!text.includes('-----BEGIN'))
    throw invalid('ERR_PARSE', field, 'must be a SPIFFE bundle (JSON) or PEM certificates');
  const roots = parseCertificates(bytes, field);
  if (roots.length > MAX_KEYS) throw tooMany(field);
  for (const [index, root] of roots.entries())
    checkRoot(root, trustDomain, `${field} block ${index + 1}`);
  return {
    trustDomain,
    roots: createTrustBundle(roots.map(({ der }) => der)),
    jwtKeys: [],
    refreshHintSeconds: undefined,
  };
}

function parseJson(text: string, trustDomain: string, field: string): SpiffeBundle {
  const document = readJson(text, field);
  const { keys, spiffe_refresh_hint: hint } = document;
  if ('trust_domains' in document)
    throw invalid(
      'ERR_PARSE',
      field,
      'must be the bundle of one trust domain, not a map of bundles',
    );
  if (!Array.isArray(keys)) throw invalid('ERR_PARSE', `${field} keys`, 'must be a list');
  if (keys.length > MAX_KEYS) throw tooMany(field);
  if (hint !== undefined && !(Number.isInteger(hint) && Number(hint) >= 0)) {
    throw invalid('ERR_PARSE', `${field} spiffe_refresh_hint`, 'must be a whole number of seconds');
  }
  const rootsDer: Uint8Array[] = [];
  const jwtKeys = new Map<string, JwtKey>();
  keys.forEach((key, index) => {
    const at = `${field} keys[${index}]`;
    if (!isObject(key)) throw invalid('ERR_PARSE', at, 'must be an object');
    if ('d' in key || 'k' in key)
      throw invalid('ERR_PARSE', at, 'must not hold a private key', {
        hint: 'ask its publisher to replace it',
      });
    if (key.use === 'x509-svid') rootsDer.push(...readRoot(key, trustDomain, at));
    if (key.use === 'jwt-svid') addJwtKey(jwtKeys, key, at);
  });
  return {
    trustDomain,
    roots: rootsDer.length === 0 ? undefined : createTrustBundle(rootsDer),
    jwtKeys: [...jwtKeys.values()],
    refreshHintSeconds: hint === undefined ? undefined : Math.min(Number(hint), MAX_HINT_SECONDS),
  };
}

function readJson(text: string, field: string): Readonly<Record<string, unknown>> {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw invalid('ERR_PARSE', field, 'must be JSON', { cause });
  }
  if (!isObject(document)) throw invalid('ERR_PARSE', field, 'must be a JSON object');
  return document;
}

function readRoot(
  key: Readonly<Record<string, unknown>>,
  trustDomain: string,
  at: string,
): Uint8Array[] {
  const first: unknown = Array.isArray(key.x5c) ? key.x5c[0] : undefined;
  if (first === undefined) return [];
  if (typeof first !== 'string' || !/^[A-Za-z0-9+/]+={0,2}$/.test(first))
    throw invalid('ERR_PARSE', `${at}.x5c`, 'must be base64');
  const root = parseCertificate(Buffer.from(first, 'base64'), `${at}.x5c`);
  checkRoot(root, trustDomain, `${at}.x5c`);
  return [root.der];
}

function checkRoot(root: Certificate, trustDomain: string, at: string): void {
  if (!isCa(root)) throw invalid('ERR_PARSE', at, 'must be a CA certificate');
  for (const uri of uriNames(root)) {
    const named = /^spiffe:\/\/([^/]*)/i.exec(uri)?.[1];
    if (named !== undefined && named !== trustDomain)
      throw invalid('ERR_PARSE', at, `must be of trust domain ${trustDomain}, not ${named}`);
  }
}

function addJwtKey(
  keys: Map<string, JwtKey>,
  key: Readonly<Record<string, unknown>>,
  at: string,
): void {
  const { kid } = key;
  if (typeof kid !== 'string' || kid === '' || kid.length > MAX_KID)
    throw invalid('ERR_PARSE', `${at}.kid`, 'must be there');
  if (keys.has(kid)) throw invalid('ERR_PARSE', `${at}.kid`, 'must not be that of another key');
  const found = readPublicKey(kid, key, at);
  if (found) keys.set(kid, found);
}

const CURVES: readonly unknown[] = ['P-256', 'P-384', 'P-521'];

/** A key that signs one of the algorithms of JWT-SVID section 2.1; undefined for another kind. */
function readPublicKey(
  kid: string,
  { kty, n, e, crv, x, y }: Readonly<Record<string, unknown>>,
  at: string,
): JwtKey | undefined {
  const isText = (value: unknown): value is string => typeof value === 'string';
  const key: JwtKey | undefined =
    kty === 'RSA' && isText(n) && isText(e)
      ? { kid, kty, n, e }
      : kty === 'EC' && isText(crv) && CURVES.includes(crv) && isText(x) && isText(y)
        ? { kid, kty, crv, x, y }
        : undefined;
  if (key === undefined) return undefined;
  const { weakness } = parsePublicKey(spkiOf(key, at), at);
  if (weakness !== undefined) throw invalid('ERR_PARSE', at, weakness);
  return key;
}

function spkiOf(key: JwtKey, at: string): Uint8Array {
  try {
    return createPublicKey({ key: { ...key }, format: 'jwk' }).export({
      type: 'spki',
      format: 'der',
    });
  } catch (cause) {
    throw invalid('ERR_PARSE', at, 'must be a public key', { cause });
  }
}

/**
 * Writes a bundle in SPIFFE's JSON form, as another trust domain's `--federated-bundle` or SPIRE reads it. There is no `spiffe_sequence`:
 * several processes publish one bundle, and none of them numbers it for the others.
 */
export function formatSpiffeBundle({
  roots,
  jwtKeys,
  refreshHintSeconds,
}: Omit<SpiffeBundle, 'trustDomain'>): object {
  const x509 = (roots?.rootsDer ?? []).map((der) => {
    const { spkiDer } = parseCertificate(der, 'root').publicKey;
    const jwk = createPublicKey({ key: Buffer.from(spkiDer), format: 'der', type: 'spki' }).export({
      format: 'jwk',
    });
    return { ...jwk, use: 'x509-svid', x5c: [Buffer.from(der).toString('base64')] };
  });
  const jwt = jwtKeys.map((key) => ({ ...key, use: 'jwt-svid' }));
  return {
    keys: [...x509, ...jwt],
    ...(refreshHintSeconds !== undefined && { spiffe_refresh_hint: refreshHintSeconds }),
  };
}

/** The keys of JWT-SVIDs as a plain JWK set, which any verifier of tokens reads: without SPIFFE's own `use`. */
export function formatJwks(jwtKeys: readonly JwtKey[]): Buffer {
  return Buffer.from(JSON.stringify({ keys: jwtKeys }));
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function tooMany(field: string) {
  return invalid('ERR_PARSE', field, `must not hold more than ${MAX_KEYS} keys`);
}
