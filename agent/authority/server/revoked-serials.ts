import type { Deps } from '../../base/deps';
import { AgentError } from '../../base/errors';
import { eachOf, inTurns } from '../../base/steps';
import type { CaStore, Revocation } from '../store/store';

/** The serials that were revoked, as every call wants to know them: without waiting. */
export interface RevokedSerials {
  has(serial: string): boolean;
  /** Why they are not known to be up to date. */
  problem(): AgentError | undefined;
  close(): Promise<void>;
}

/** Behind the store's own word, which may be lost between machines. */
const REFRESH_MS = 30_000;
const RETRY_MS = 1_000;
const PER_STEP = 5_000;

/** Follows the store's revocations. @throws AgentError ERR_CA_STATE where they cannot be read at the start. */
export async function followRevocations(
  store: Pick<CaStore, 'revocations' | 'onRevocation'>,
  deps: Deps,
): Promise<RevokedSerials> {
  const { clock, log } = deps;
  const stop = new AbortController();
  let wake = new AbortController();
  let problem: AgentError | undefined;
  let last: readonly Revocation[] = [];
  let revoked: ReadonlySet<string> = new Set();
  const read = async () => {
    wake = new AbortController();
    const all = await store.revocations(clock.now());
    if (all === last) return;
    const serials = new Set<string>();
    await inTurns(eachOf(all, PER_STEP, ({ serial }) => serials.add(serial)));
    [last, revoked] = [all, serials];
  };
  await read();
  const woken = () => wake.abort();
  const unsubscribe = store.onRevocation(woken);
  stop.signal.addEventListener('abort', woken, { once: true });
  const running = (async () => {
    while (!stop.signal.aborted) {
      await clock
        .sleepUntil(clock.now() + (problem ? RETRY_MS : REFRESH_MS), wake.signal)
        .catch(() => undefined);
      if (stop.signal.aborted) return;
      try {
        await read();
        problem = undefined;
      } catch (caught) {
        problem ??= AgentError.from(caught);
        log.error('reading revocations failed, keeping the previous ones', { cause: caught });
      }
    }
  })();
  return {
    has: (serial) => revoked.has(serial),
    problem: () => problem,
    close: async () => {
      stop.abort();
      unsubscribe();
      await running;
    },
  };
}
