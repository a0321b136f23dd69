import type { Authority } from '../../agent/authority/authority';
import { rejected } from '../../agent/authority/csr-rules';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { formatSpiffeId, type SpiffeId, sameSpiffeId } from '../../agent/identity/spiffe-id';
import type { CaClient, IssuedChain, SignRequest } from '../ca-client';

export interface BuiltinCaOptions {
  /** Shared by all workloads of the process; whoever opened it closes it. */
  readonly authority: Authority;
  /** The identity that our own configuration gives the workload: in process, that is all the proof there is. */
  readonly caller: SpiffeId;
}

/** The authority in this process as the keeper sees a CA. It needs no network and no credential. */
export function createBuiltinCa({ authority, caller }: BuiltinCaOptions, deps: Deps): CaClient {
  const stop = new AbortController();
  const stopListening = new Set<() => void>();
  return {
    name: 'builtin',
    trust: authority.trust,
    async sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
      const isDropped = () => signal.aborted || stop.signal.aborted;
      if (isDropped()) throw aborted();
      if (!sameSpiffeId(request.id, caller)) {
        throw rejected(
          'request id',
          `must be the caller's own, not ${formatSpiffeId(request.id)}`,
          formatSpiffeId(caller),
        );
      }
      const certificatesDer = await authority.sign(request.csrDer, caller, request.ttlSeconds);
      if (!isDropped()) return { certificatesDer };
      // Signing takes a few milliseconds and cannot be broken off.
      deps.log.debug('certificate dropped, its request was cancelled', {
        id: formatSpiffeId(caller),
      });
      throw aborted();
    },
    onChange(listener) {
      const end = authority.onSignerChange(() => listener('signer'));
      stopListening.add(end);
      return () => {
        stopListening.delete(end);
        end();
      };
    },
    problem: () => authority.describe().lastError,
    credentialExpiresAt: () => undefined,
    async close() {
      stop.abort();
      for (const end of stopListening) end();
      stopListening.clear();
    },
  };
}

function aborted(): AgentError {
  return new AgentError('ERR_ABORTED', 'sign: aborted');
}
