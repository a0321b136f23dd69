import type { Deps } from '../../agent/base/deps';
import type { Method } from '../grpc/grpc-server';
import { Lazy } from '../grpc/lazy';
import { pathOf, STREAMED_METHODS, UNARY_METHODS } from './service';
import type { WorkloadApi, WorkloadApiOptions } from './workload-api';

/** The SPIFFE Workload API as the server knows it: nothing of it is loaded before the first call. */
export interface LazyWorkloadApi {
  readonly service: Lazy<WorkloadApi>;
  readonly methods: readonly (readonly [path: string, Method])[];
}

export function createLazyWorkloadApi(options: WorkloadApiOptions, deps: Deps): LazyWorkloadApi {
  const load = async () => new (await import('./workload-api')).WorkloadApi(options, deps);
  const service = new Lazy('the workload api', load, deps);
  return {
    service,
    methods: [
      ...STREAMED_METHODS.map(
        (name) => [pathOf(name), service.one((api, call) => api.open(name, call))] as const,
      ),
      ...UNARY_METHODS.map(
        (name) =>
          [
            pathOf(name),
            service.one((api, call, request) => void api.answer(name, call, request)),
          ] as const,
      ),
    ],
  };
}
