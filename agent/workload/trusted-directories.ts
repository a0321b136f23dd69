import { accountId } from '../base/account-id';
import { assertTrustedPath } from '../base/open-directory';
import type { Config } from '../config/config';

/**
 * Refuses places that a workload's certificates and state would be written to, where this process may change files of other users and
 * another user than the owner of its socket could exchange names on the way. The socket is judged where it is bound.
 *
 * @throws AgentError ERR_OUTPUT with the directory and a remedy; ERR_SOCKET where there is no such owner.
 */
export function assertTrustedDirectories({
  outputCerts,
  stateDir,
  sdsSocket,
  sdsSocketOwner,
}: Config): void {
  const owner =
    sdsSocketOwner === undefined
      ? undefined
      : accountId('user', sdsSocketOwner, `sds socket ${sdsSocket}`);
  if (outputCerts !== undefined)
    assertTrustedPath(outputCerts, 'directory of the certificate files', 'ERR_OUTPUT', owner);
  if (stateDir !== undefined) assertTrustedPath(stateDir, 'state directory', 'ERR_OUTPUT', owner);
}
