import { readFileSync } from 'node:fs';
import { AgentError } from './errors';

/** Where accounts are listed, by name, a field of no interest, and number. */
const ACCOUNTS = { user: '/etc/passwd', group: '/etc/group' } as const;

/**
 * A user's or group's number by name or number. Read from the files, as Node has no getpwnam and getgrnam.
 *
 * @param whose  For the error, e.g. `sds socket /run/sds.sock`.
 * @throws       AgentError ERR_SOCKET.
 */
export function accountId(what: 'user' | 'group', account: string, whose: string): number {
  if (/^\d{1,10}$/.test(account)) return Number(account);
  try {
    for (const line of readFileSync(ACCOUNTS[what], 'utf8').split('\n')) {
      const [name, , id] = line.split(':');
      if (name === account && id !== undefined && /^\d+$/.test(id)) return Number(id);
    }
  } catch (cause) {
    const hint = `give the ${what} as a number`;
    throw new AgentError('ERR_SOCKET', `${whose}: cannot look up the ${what} ${account}`, {
      hint,
      cause,
    });
  }
  throw new AgentError(
    'ERR_SOCKET',
    `${whose}: there is no ${what} ${account} in ${ACCOUNTS[what]}`,
    {
      hint: `name an existing ${what} or give its number`,
    },
  );
}
