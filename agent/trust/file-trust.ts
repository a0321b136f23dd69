import type { Deps } from '../base/deps';
import { AgentError, errorText } from '../base/errors';
import { readSmallFile } from '../base/read-file';
import { type Watched, WatchedSource } from '../base/watched';
import { parseRootBundle, rootWarnings } from '../identity/certificate';
import type { TrustBundle } from '../identity/trust-bundle';
import { followFiles } from './follow-files';

/** The roots in a file, as they change. */
export interface FileTrust {
  /** Undefined until the file has been read with at least one good root in it. Never taken back: a bad file leaves the last good one. */
  readonly trust: Watched<TrustBundle | undefined>;
  /** Resolves when the file has been looked at for the first time, whatever was found. */
  readonly ready: Promise<void>;
  /** Why the file as it stands is not in use. */
  problem(): AgentError | undefined;
  /** Reads again now, for whoever is about to need it. Never throws. */
  refresh(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Follows a file of root certificates, PEM, which need not exist yet. Damaged blocks in it are skipped with a warning, and so are the roots of
 * other trust domains than `domains`.
 */
export function followTrustFile(
  path: string,
  domains: ReadonlySet<string> | undefined,
  deps: Deps,
): FileTrust {
  const trust = new WatchedSource<TrustBundle | undefined>(undefined);
  let problem: AgentError | undefined;
  let told = '';
  let closed = false;

  const tell = (complaint: string, event: string, facts: object) => {
    if (complaint !== told && complaint !== '') deps.log.warn(event, { file: path, ...facts });
    told = complaint;
  };
  const read = async () => {
    try {
      const pem = await readSmallFile(path, { field: path, code: 'ERR_CA_UNAVAILABLE' });
      const { bundle, skipped } = parseRootBundle(pem, path, domains);
      if (closed) return;
      problem = undefined;
      tell(skipped.join('; '), 'trust bundle file has invalid roots, using the others', {
        skipped,
      });
      if (bundle.version === trust.value?.version) return;
      for (const warning of rootWarnings(bundle))
        deps.log.warn('trust bundle file has roots with warnings', { file: path, warning });
      trust.set(bundle);
    } catch (caught) {
      problem = new AgentError(
        'ERR_CA_UNAVAILABLE',
        `read trust bundle ${path}: ${errorText(caught)}`,
        {
          retry: 'soon',
          cause: caught,
          hint: 'put the PEM root certificates of the mesh there; the agent loads them at once',
        },
      );
      const event = trust.value
        ? 'trust bundle file invalid, keeping the previous roots'
        : 'no trust bundle yet';
      if (!closed) tell(problem.message, event, { cause: problem });
      throw problem;
    }
  };
  // One reading at a time, so that an older one never overtakes a newer one.
  let last: Promise<void> = Promise.resolve();
  const next = () => {
    const reading = last.then(read);
    last = reading.catch(() => undefined);
    return reading;
  };
  const refresh = () => next().catch(() => undefined);
  const ready = refresh();
  const following = followFiles([path], next, deps);
  return {
    trust,
    ready,
    problem: () => problem,
    refresh,
    async close() {
      closed = true;
      await following.close();
      await last;
    },
  };
}
