import { backoffMs } from '../../agent/base/backoff';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import type { KubeApi } from '../../agent/kube/kube-api';
import { isKubeStatus } from '../../agent/kube/kube-error';
import { fieldSelector } from '../../agent/kube/kube-path';
import type { IssuedChain } from '../ca-client';
import { CSR_PATH, csrPath, type KubeCsr, readCsrAnswer } from './csr-object';

/** Between looks while the API does not answer; whoever waits has a deadline of seconds. */
const LOOK_AGAIN = { firstMs: 200, maxMs: 5_000, jitterRatio: 0.2 };

/** Thrown through a watch to end it: the object has been answered. */
class Answered extends Error {
  constructor(readonly chain: IssuedChain) {
    super('answered');
  }
}

/**
 * Waits until a request is answered: by a watch on that one object, and by a new look whenever the watch ends, however it does.
 *
 * @param created  As the API returned it; changes from there on are seen.
 * @param onSeen   Each state of the object, in order.
 * @throws         AgentError as `readCsrAnswer`; ERR_CA_REJECTED (retry soon) where the object is deleted; the API's error where we may not
 *                 look at all; ERR_ABORTED. What passes by itself is waited for: the deadline is the caller's.
 */
export async function awaitAnswer(
  api: KubeApi,
  created: KubeCsr,
  onSeen: (csr: KubeCsr) => void,
  deps: Deps,
  signal: AbortSignal,
): Promise<IssuedChain> {
  const { name } = created.metadata;
  let latest: KubeCsr | undefined = created;
  for (let looks = 1; ; looks += 1) {
    let waitMs = backoffMs(looks, LOOK_AGAIN, deps.random);
    try {
      latest ??= await api.request<KubeCsr>('GET', csrPath(name), { signal });
      onSeen(latest);
      const chain = readCsrAnswer(latest) ?? (await watchOne(api, latest, onSeen, signal));
      if (chain) return chain;
    } catch (caught) {
      if (isKubeStatus(caught, 404)) throw deleted(name);
      const error = AgentError.from(caught);
      if (!isPassing(error)) throw error;
      waitMs = Math.max(waitMs, error.retryAfterMs ?? 0);
    }
    // The watch may have missed the answer, and its version may be too old to watch on from.
    latest = undefined;
    await deps.clock.sleepUntil(deps.clock.now() + waitMs, signal);
  }
}

/** The chain, or undefined where the server ended the watch before there was one. */
async function watchOne(
  api: KubeApi,
  from: KubeCsr,
  onSeen: (csr: KubeCsr) => void,
  signal: AbortSignal,
): Promise<IssuedChain | undefined> {
  const { name, resourceVersion } = from.metadata;
  const query = `${fieldSelector('metadata.name', name)}&resourceVersion=${encodeURIComponent(resourceVersion)}`;
  try {
    await api.watch<KubeCsr>(
      `${CSR_PATH}?${query}`,
      ({ type, object }) => {
        if (type === 'BOOKMARK') return;
        if (type === 'DELETED') throw deleted(name);
        onSeen(object);
        const chain = readCsrAnswer(object);
        if (chain) throw new Answered(chain);
      },
      signal,
    );
    return undefined;
  } catch (caught) {
    if (caught instanceof Answered) return caught.chain;
    throw caught;
  }
}

function isPassing(error: AgentError): boolean {
  return error.retry === 'soon' && (error.code !== 'ERR_CA_REJECTED' || isKubeStatus(error, 410));
}

function deleted(name: string): AgentError {
  return new AgentError(
    'ERR_CA_REJECTED',
    `sign ${name}: the request was deleted before it was answered`,
    { retry: 'soon' },
  );
}
