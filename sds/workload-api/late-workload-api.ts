import type { Deps } from '../../agent/base/deps';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { Call } from '../grpc/call';
import type { Method } from '../grpc/grpc-server';
import { pathOf, STREAMED_METHODS, type StreamedMethod, UNARY_METHODS, type UnaryMethod } from './service';
import type { WorkloadApi, WorkloadApiOptions } from './workload-api';

/** The SPIFFE Workload API as the server knows it: nothing of it is loaded before the first call. */
export interface LateWorkloadApi {
  readonly methods: readonly (readonly [path: string, Method])[];
  /** Open streams. */
  streams(): number;
  isOwed(): boolean;
  sweep(): void;
  close(): Promise<void>;
}

export function createLateWorkloadApi(options: WorkloadApiOptions, deps: Deps): LateWorkloadApi {
  let opening: Promise<WorkloadApi> | undefined;
  let opened: WorkloadApi | undefined;
  const load = async () => {
    const api = await import('./workload-api');
    opened = new api.WorkloadApi(options, deps);
    return opened;
  };
  const method = (
    name: StreamedMethod | UnaryMethod,
    use: (api: WorkloadApi, call: Call, request: Buffer) => void,
  ): readonly [string, Method] => {
    const serve = (call: Call, request: Buffer) => {
      opening ??= load();
      opening
        .then((api) => use(api, call, request))
        .catch((cause) => {
          deps.log.error('a call of the workload api failed', { cause });
          call.finish(GrpcStatus.INTERNAL, 'internal error; the log of the agent says more');
        });
    };
    return [pathOf(name), { requests: 'one', serve }];
  };
  return {
    methods: [
      ...STREAMED_METHODS.map((name) => method(name, (api, call) => api.open(name, call))),
      ...UNARY_METHODS.map((name) => method(name, (api, call, request) => void api.answer(name, call, request))),
    ],
    streams: () => opened?.streams() ?? 0,
    isOwed: () => opened?.isOwed() ?? false,
    sweep: () => opened?.sweep(),
    close: async () => {
      await opening?.then((api) => api.close());
    },
  };
}
