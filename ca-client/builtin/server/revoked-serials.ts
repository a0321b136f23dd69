import type { Deps } from '../../../agent/base/deps';
import { AgentError } from '../../../agent/base/errors';
import type { CaStore } from '../store/store';

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

/** Follows the store's revocations. @throws AgentError ERR_CA_STATE where they cannot be read at the start. */
export async function followRevocations(store: Pick<CaStore, 'revocations' | 'onRevocation'>, deps: Deps): Promise<RevokedSerials> {
  const { clock, log } = deps;
  const stop = new AbortController();
  let wake = new AbortController();
  let problem: AgentError | undefined;
  const read = async () => {
    wake = new AbortController();
    return new Set((await store.revocations(clock.now())).map(({ serial }) => serial));
  };
  let revoked = await read();
  const woken = () => wake.abort();
  const unsubscribe = store.onRevocation(woken);
  stop.signal.addEventListener('abort', woken, { once: true });
  const running = (async () => {
    while (!stop.signal.aborted) {
      await clock.sleepUntil(clock.now() + (problem ? RETRY_MS : REFRESH_MS), wake.signal).catch(() => undefined);
      if (stop.signal.aborted) return;
      try {
        revoked = await read();
        problem = undefined;
      } catch (caught) {
        problem ??= AgentError.from(caught);
        log.error('revocations cannot be read, the last known ones hold', { cause: caught });
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
