import { AgentError } from '../../base/errors';

/** What of a `Stats` decides who may read and write. */
export interface Ownership {
  /** With or without the file type's bits. */
  readonly mode: number;
  readonly uid: number;
}

/** Permission bits that must not be set, and what `chmod` is to make of them. */
const RULES = {
  directory: { forbidden: 0o077, wanted: '0700' },
  key: { forbidden: 0o077, wanted: '0600' },
  // Certificates are public, but whoever may write them decides whom everybody trusts.
  certificate: { forbidden: 0o022, wanted: '0644' },
} as const;

/**
 * Refuses what others may get at.
 *
 * @param readOnlyMount  There a key may be readable by its group: a Kubernetes secret volume with `fsGroup` grants it so, to this pod alone.
 * @param us             Our user id. Root's files are as good as ours, since root needs no permission.
 * @throws               AgentError ERR_CA_STATE with the path, the mode found and the `chmod` that mends it.
 */
export function assertPrivate(
  kind: keyof typeof RULES,
  path: string,
  found: Ownership,
  readOnlyMount: boolean,
  us: number = process.geteuid?.() ?? 0,
): void {
  if (found.uid !== us && found.uid !== 0) {
    throw new AgentError(
      'ERR_CA_STATE',
      `open ${path}: it belongs to user ${found.uid}, and keyturn runs as ${us}`,
      {
        field: path,
        rule: 'must belong to the user that keyturn runs as, or to root',
        hint: `chown ${us} ${path}`,
      },
    );
  }
  const { forbidden, wanted } = RULES[kind];
  const loose = found.mode & forbidden & (readOnlyMount && kind === 'key' ? ~0o040 : ~0);
  if (loose === 0) return;
  const mode = (found.mode & 0o7777).toString(8).padStart(4, '0');
  throw new AgentError('ERR_CA_STATE', `open ${path}: mode ${mode} is open to others`, {
    field: path,
    rule: `must not be looser than ${wanted}`,
    hint: `chmod ${wanted} ${path}`,
  });
}
