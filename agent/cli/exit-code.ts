import type { ErrorCode } from '../base/errors';

/**
 * What a failed command exits with: sysexits, so that a unit file can say `RestartPreventExitStatus=64 78`.
 *
 * @see sysexits.h of BSD; systemd.service(5) RestartPreventExitStatus.
 */
export const EXIT_CODES = {
  ERR_USAGE: 64,
  ERR_PARSE: 65,
  ERR_MANIFEST: 65,
  ERR_POLICY: 65,
  ERR_FILE_SOURCE: 66,
  ERR_INPUT: 66,
  ERR_SECRET_UNKNOWN: 66,
  ERR_CONTROL: 69,
  ERR_BUG: 70,
  ERR_SOCKET: 71,
  ERR_SOCKET_IN_USE: 71,
  ERR_OUTPUT: 73,
  ERR_CA_UNAVAILABLE: 75,
  ERR_TIMEOUT: 75,
  ERR_TOKEN: 75,
  ERR_TOO_EARLY: 75,
  ERR_SELF_CHECK: 75,
  ERR_CA_RESPONSE: 76,
  ERR_CA_REJECTED: 77,
  ERR_CA_STATE: 78,
  ERR_CONFIG: 78,
  ERR_IDENTITY_INVALID: 78,
  // As a shell reports a command that Ctrl-C ended.
  ERR_ABORTED: 130,
} as const satisfies Record<ErrorCode, number>;
