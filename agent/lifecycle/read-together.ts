import { resolve } from 'node:path';
import { AgentError } from '../base/errors';
import { followPath } from '../base/file-place';
import { type ReadLimits, readSmallFile } from '../base/read-file';

/** A writer that replaces the files faster than they can be read this often is no writer of certificates. */
const MAX_ROUNDS = 10;

/**
 * Reads several files such that no replacement of any of them, or of a link on the way such as `..data`, came in between.
 *
 * @throws AgentError `code`, retry soon: one is missing or unreadable, or they keep changing.
 */
export async function readTogether(
  paths: readonly string[],
  limits: (path: string) => ReadLimits,
): Promise<readonly Buffer[]> {
  const places = async () =>
    (await Promise.all(paths.map((path) => followPath(resolve(path)))))
      .map(({ print }) => print)
      .join('\0');
  let before = await places();
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const outcomes = await Promise.allSettled(
      paths.map((path) => readSmallFile(path, limits(path))),
    );
    const after = await places();
    if (after === before) return outcomes.map((outcome) => contents(outcome));
    before = after;
  }
  const { code, field } = limits(paths[0]!);
  throw new AgentError(code, `read ${paths.join(', ')}: they keep changing`, {
    retry: 'soon',
    field,
  });
}

function contents(outcome: PromiseSettledResult<Buffer>): Buffer {
  if (outcome.status === 'rejected') throw outcome.reason;
  return outcome.value;
}
