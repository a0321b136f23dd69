import { AgentError } from '../../base/errors';
import type { Certificate } from '../../identity/certificate';
import { readCaFiles } from '../directory/ca-files';
import { acceptIssuer } from '../issuer';
import { certificateId, hasSigned, stagedIds } from '../signers';
import { keyHash, type RootsOptions, rootsOf, verdictOf } from './root-facts';

/**
 * The kept signer that is meant: by its id or its root's, or the beginning of one. Without a name the only one that has never signed; where
 * each has, the active one, so that a command that is run again takes nothing back. A name means the active one only where it fits no other.
 */
export async function chooseSigner(
  options: RootsOptions,
  wanted: string | undefined,
  activeId: string,
  now: number,
): Promise<string> {
  const ids = (await stagedIds(options.dir)).filter((id) => id !== activeId);
  if (wanted === undefined) {
    const unused: string[] = [];
    for (const id of ids) if (!(await hasSigned(options.dir, id))) unused.push(id);
    if (unused.length === 1) return unused[0]!;
    if (ids.length === 0) throw choose('signer', ids, 'add one with: keyturn ca root add');
    if (unused.length === 0) return activeId;
    throw choose('signer', unused, 'name one of them');
  }
  const current = await readCaFiles(options.dir);
  const roots = rootsOf(current);
  const isMeant = (id: string, rootKeySha256: string | undefined) =>
    [id, ...roots.filter((root) => keyHash(root) === rootKeySha256).map(certificateId)].some(
      (name) => name.startsWith(wanted),
    );
  const found: string[] = [];
  for (const id of ids)
    if (isMeant(id, (await verdictOf(options, id, now))?.rootKeySha256)) found.push(id);
  if (found.length === 1) return found[0]!;
  const active = await acceptIssuer(current, options, options.engine, now);
  if (found.length === 0 && isMeant(activeId, active.rootKeySha256)) return activeId;
  throw choose(`signer ${wanted}`, ids, 'name one of them');
}

/** The root that is meant: by the beginning of its id; or the only one that the active signer does not lead to. */
export function chooseRoot(
  roots: readonly Certificate[],
  wanted: string | undefined,
  activeKey: string,
): Certificate {
  const found = roots.filter((root) =>
    wanted === undefined ? keyHash(root) !== activeKey : certificateId(root).startsWith(wanted),
  );
  if (found.length === 1) return found[0]!;
  throw choose(
    wanted === undefined ? 'root' : `root ${wanted}`,
    roots.map(certificateId),
    'name one of them',
  );
}

function choose(what: string, ids: readonly string[], hint: string): AgentError {
  return new AgentError(
    'ERR_CA_STATE',
    `choose ${what}: there is ${ids.length === 0 ? 'none' : ids.join(', ')} to choose from`,
    { hint },
  );
}
