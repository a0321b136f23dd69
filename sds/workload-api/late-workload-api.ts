import type { Deps } from '../../agent/base/deps';
import type { Method } from '../grpc/grpc-server';
import { Late } from '../grpc/late';
import { pathOf, STREAMED_METHODS, UNARY_METHODS } from './service';
import type { WorkloadApi, WorkloadApiOptions } from './workload-api';

/** The SPIFFE Workload API as the server knows it: nothing of it is loaded before the first call. */
export interface LateWorkloadApi {
  readonly service: Late<WorkloadApi>;
  readonly methods: readonly (readonly [path: string, Method])[];
}

export function createLateWorkloadApi(options: WorkloadApiOptions, deps: Deps): LateWorkloadApi {
  const load = async () => new (await import('./workload-api')).WorkloadApi(options, deps);
  const service = new Late('the workload api', load, deps);
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
