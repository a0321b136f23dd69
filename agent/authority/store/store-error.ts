import { AgentError, errorText, systemCode } from '../../base/errors';

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'free some space on its file system',
  EDQUOT: 'free some space in the quota of this user',
  EROFS: 'the authority keeps its state in its CA directory; mount it writable',
  EACCES: 'make it writable for the user that keyturn runs as',
  EPERM: 'make it writable for the user that keyturn runs as',
  EMFILE: 'raise the limit of open files (ulimit -n)',
};

/** The store could not do its work: nothing was promised, and it may be tried again. What is ours already passes. */
export function storeError(what: string, caught: unknown): AgentError {
  if (caught instanceof AgentError) return caught;
  const hint = HINTS[systemCode(caught) ?? ''];
  return new AgentError('ERR_CA_STATE', `${what}: ${errorText(caught)}`, {
    retry: 'soon',
    cause: caught,
    ...(hint && { hint }),
  });
}

/** What is written there cannot be what was written. A register with holes is no register, so nobody goes on with it. */
export function damaged(path: string, offset: number): AgentError {
  return new AgentError('ERR_CA_STATE', `read ${path}: damaged at byte ${offset}`, {
    field: path,
    rule: 'must hold whole records with right check sums',
    hint: 'put the file back from a backup; moving it away forgets the tokens, certificates or revocations in it',
  });
}
