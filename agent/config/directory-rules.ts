import { invalid } from '../base/errors';
import type { SettingName } from './options';
import { readsFiles, type SettingsDraft } from './rules';

type DirectoryName = Extract<
  SettingName,
  'ca-dir' | 'credentials-dir' | 'output-certs' | 'state-dir'
>;

/**
 * What the agent writes lies apart from what it reads and from what else it writes: the names are the same in all of these directories.
 *
 * @param place  Where a directory is, so that two names of one are equal.
 * @throws       AgentError ERR_CONFIG.
 */
export function checkDirectories(draft: SettingsDraft, place: (dir: string) => string): void {
  apart(draft, place, 'output-certs', ['ca-dir', 'state-dir', 'credentials-dir']);
  apart(draft, place, 'state-dir', ['ca-dir', 'credentials-dir']);
}

function apart(
  draft: SettingsDraft,
  place: (dir: string) => string,
  name: DirectoryName,
  others: DirectoryName[],
): void {
  const { values, readings } = draft;
  const dir = values[name];
  if (dir === undefined) return;
  for (const other of others) {
    const taken = values[other];
    if (taken === undefined || !isUsed(draft, other) || place(dir) !== place(taken)) continue;
    throw invalid(
      'ERR_CONFIG',
      readings.get(name)!.origin,
      `"${dir}" must be another directory than ${other}`,
      {
        hint: `${other} is ${taken} (${readings.get(other)!.origin})`,
      },
    );
  }
}

function isUsed(draft: SettingsDraft, name: DirectoryName): boolean {
  if (name === 'ca-dir') return draft.values.ca?.includes('builtin') ?? false;
  return name !== 'credentials-dir' || readsFiles(draft);
}
