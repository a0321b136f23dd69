import type { JwtKey } from '../../identity/spiffe-bundle';
import { jwtKeysDir, readJwtKeys } from './jwt-key-files';
import { planKeys } from './jwt-key-plan';

/**
 * What tokens of a CA directory are verified by at the moment; empty where no agent has signed any yet. Makes and removes nothing.
 *
 * @throws AgentError ERR_CA_STATE.
 */
export async function readPublishedKeys(caDir: string, now: number): Promise<readonly JwtKey[]> {
  return planKeys(await readJwtKeys(jwtKeysDir(caDir)), now).published.map(({ jwk }) => jwk);
}
