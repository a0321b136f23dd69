import { approverGauges } from '../admin/gauges';
import { serveServiceAdmin, serviceHealth } from '../admin/service-admin';
import { Approver, type ApproverOptions } from '../approver/approver';
import { Closers } from '../base/closers';
import { AgentError } from '../base/errors';
import type { Health } from '../base/health';
import { RUNTIME } from '../base/runtime';
import { VERSION } from '../base/version';
import { openKubeApi } from '../kube/open-kube-api';
import type { AgentDeps } from './agent';

/** Every setting of `keyturn approver`, checked. */
export interface ApproverServiceConfig extends Omit<ApproverOptions, 'api'> {
  /** Health and metrics over HTTP, `host:port`; port 0 takes a free one. */
  readonly adminAddress: string;
  readonly kubeconfig: string | undefined;
}

/** A running approver. */
export interface ApproverService {
  readonly health: Health;
  /** `host:port`, with the port that was really taken. */
  readonly adminAddress: string;
  /** Ends everything, innermost last. Idempotent. */
  close(): Promise<void>;
}

/**
 * Decides the requests to a signer. Resolves when the health port is open, which says whether the API server lets us follow requests, what
 * cannot be decided and which certificate violates policy: an API server that is away is waited for.
 *
 * @throws AgentError; nothing is left behind: what had started is closed.
 */
export async function startApproverService(
  config: ApproverServiceConfig,
  env: NodeJS.ProcessEnv,
  deps: AgentDeps,
): Promise<ApproverService> {
  const closers = new Closers();
  try {
    const api = await openKubeApi(config.kubeconfig, env, deps);
    closers.add(() => api.close());
    const approver = new Approver({ ...config, api }, deps);
    const problem = () => approver.problem();
    const gauges = () => {
      const { watching, undecided, stuck, violations } = approver;
      const ready = problem() === undefined;
      return approverGauges({
        version: VERSION,
        runtime: RUNTIME,
        ready,
        watching,
        undecided,
        stuck,
        violations,
      });
    };
    const admin = await serveServiceAdmin({ address: config.adminAddress, problem, gauges }, deps);
    closers.add(() => admin.close());
    const stop = new AbortController();
    const running = approver.run(stop.signal);
    void running.catch((caught: unknown) =>
      deps.log.error('approver stopped', { cause: AgentError.from(caught) }),
    );
    closers.add(async () => {
      stop.abort();
      await running.catch(() => undefined);
    });
    return {
      adminAddress: admin.address,
      health: serviceHealth(problem, `approving requests for ${config.signerName}`),
      close: closers.close,
    };
  } catch (caught) {
    await closers.close();
    throw caught;
  }
}
