import { type Claims, parseClaims } from './jwt-claims';

/** The audience that Istio's authorities ask for, unless told otherwise. */
export const ISTIO_AUDIENCE = 'istio-ca';

/**
 * What a JWT says of itself. Nothing of it is proven: whoever gets the token judges.
 *
 * @param text  The compact form.
 * @returns     Undefined where it is no JWT.
 * @see RFC 7519 section 3.
 */
export function readTokenClaims(text: string): Claims | undefined {
  const parts = text.split('.');
  return parts.length === 3
    ? parseClaims(Buffer.from(parts[1]!, 'base64url').toString('utf8'))
    : undefined;
}
