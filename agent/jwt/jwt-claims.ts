/** A JWT's claims as they stand, of any type; nothing of them has been verified. */
export type Claims = Readonly<Record<string, unknown>>;

/** Three parts of base64url (RFC 7515 section 3.1). */
const COMPACT = /^[\w-]+\.([\w-]+)\.[\w-]+$/;

/** The claims of what looks like a signed JWT; undefined for anything else. Only for choosing who is to judge it. */
export function readClaims(token: string): Claims | undefined {
  const payload = COMPACT.exec(token)?.[1];
  return payload === undefined
    ? undefined
    : parseClaims(Buffer.from(payload, 'base64url').toString('utf8'));
}

/** The claims in a payload; undefined where it is anything but one JSON object. */
export function parseClaims(text: string): Claims | undefined {
  try {
    const claims: unknown = JSON.parse(text);
    return typeof claims === 'object' && claims !== null && !Array.isArray(claims)
      ? (claims as Claims)
      : undefined;
  } catch {
    return undefined;
  }
}
