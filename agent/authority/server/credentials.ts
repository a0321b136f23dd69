import { Secret } from '../../base/secret';
import { refuseCredential } from './authenticator';
import { LIMITS } from './limits';
import { RefusedCall } from './status';

const SCHEME = 'Bearer ';

/**
 * The bearer token of a call. Of all its headers nothing else is looked at: what proxies write (`x-forwarded-client-cert` and the like)
 * proves nothing here, wherever it comes from.
 *
 * @param values  Of every authorization header, in order.
 * @returns       Undefined where there is none.
 * @throws        AgentError ERR_TOKEN for two of them, another scheme or an empty token; RefusedCall where it is too long.
 */
export function bearerToken(values: readonly string[]): Secret<string> | undefined {
  const [value] = values;
  if (value === undefined) return undefined;
  if (values.length > 1) throw refuseCredential('authorization', 'must be given once');
  if (!value.startsWith(SCHEME)) throw refuseCredential('authorization', 'must be a Bearer token');
  const token = value.slice(SCHEME.length).trim();
  if (token === '') throw refuseCredential('token', 'must not be empty');
  if (token.length > LIMITS.tokenBytes)
    throw new RefusedCall(
      'RESOURCE_EXHAUSTED',
      `token: must not be longer than ${LIMITS.tokenBytes} bytes`,
    );
  return new Secret(token);
}
