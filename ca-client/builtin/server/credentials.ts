import { status as GrpcStatus, type Metadata } from '@grpc/grpc-js';
import { Secret } from '../../../agent/base/secret';
import { refuseCredential } from './authenticator';
import { LIMITS } from './limits';
import { RefusedCall } from './status';

const SCHEME = 'Bearer ';

/**
 * The bearer token of a call. Of all its headers nothing else is looked at: what proxies write (`x-forwarded-client-cert` and the like)
 * proves nothing here, wherever it comes from.
 *
 * @returns Undefined where there is no authorization header.
 * @throws  AgentError ERR_TOKEN for two of them, another scheme or an empty token; RefusedCall where it is too long.
 */
export function bearerToken(metadata: Metadata): Secret<string> | undefined {
  const values = metadata.get('authorization');
  if (values.length === 0) return undefined;
  const [value] = values;
  if (values.length > 1 || typeof value !== 'string') throw refuseCredential('authorization', 'must be there once');
  // Node joins two headers of one name by a comma, which no token contains.
  if (!value.startsWith(SCHEME) || value.includes(',')) throw refuseCredential('authorization', 'must be one Bearer token');
  const token = value.slice(SCHEME.length).trim();
  if (token === '') throw refuseCredential('token', 'must not be empty');
  if (token.length > LIMITS.tokenBytes) {
    throw new RefusedCall(GrpcStatus.RESOURCE_EXHAUSTED, `token: must not be longer than ${LIMITS.tokenBytes} bytes`);
  }
  return new Secret(token);
}
