import { readFileSync } from 'node:fs';

/** CAP_CHOWN, CAP_DAC_OVERRIDE and CAP_FOWNER (linux/capability.h): with each, a process changes files of other users. */
const CAPABILITIES = (1n << 0n) | (1n << 1n) | (1n << 3n);

/**
 * Whether this process may change files that belong to other users: as root, or by a capability. Asked anew each time, as a command may
 * take on another user for a while.
 */
export function isPrivileged(): boolean {
  if (process.geteuid?.() === 0) return true;
  try {
    const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(
      readFileSync('/proc/self/status', 'latin1'),
    )?.[1];
    return effective !== undefined && (BigInt(`0x${effective}`) & CAPABILITIES) !== 0n;
  } catch {
    return false;
  }
}
