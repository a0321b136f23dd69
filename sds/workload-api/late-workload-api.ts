import type { ServerUnaryCall, sendUnaryData, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Deps } from '../../agent/base/deps';
import { GrpcStatus } from '../grpc';
import type { PushCall } from './push-stream';
import { STREAMED_METHODS, UNARY_METHODS } from './service';
import type { WorkloadApi, WorkloadApiOptions } from './workload-api';

/** The SPIFFE Workload API as the server knows it: nothing of it is loaded before the first call. */
export interface LateWorkloadApi {
  readonly handlers: UntypedServiceImplementation;
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
  const withApi = (use: (api: WorkloadApi) => void, fail: (status: { code: GrpcStatus; details: string }) => void) => {
    opening ??= load();
    opening.then(use).catch((cause) => {
      deps.log.error('a call of the workload api failed', { cause });
      fail({ code: GrpcStatus.INTERNAL, details: 'internal error; the log of the agent says more' });
    });
  };
  const streamed = STREAMED_METHODS.map((name) => {
    const handler = (call: PushCall) =>
      withApi(
        (api) => api.open(name, call),
        (status) => call.emit('error', status),
      );
    return [name, handler] as const;
  });
  const unary = UNARY_METHODS.map((name) => {
    const handler = (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) =>
      withApi((api) => void api.answer(name, call, answer), answer);
    return [name, handler] as const;
  });
  return {
    handlers: Object.fromEntries([...streamed, ...unary]),
    streams: () => opened?.streams() ?? 0,
    isOwed: () => opened?.isOwed() ?? false,
    sweep: () => opened?.sweep(),
    close: async () => {
      await opening?.then((api) => api.close());
    },
  };
}
