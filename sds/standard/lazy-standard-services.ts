import type { Deps } from '../../agent/base/deps';
import type { Method } from '../grpc/grpc-server';
import { Lazy } from '../grpc/lazy';
import type { StandardServices, StandardServicesOptions } from './standard-services';

const HEALTH = '/grpc.health.v1.Health';
/** Clients of today, and those from before v1: they say the same octets. */
const REFLECTION = [
  '/grpc.reflection.v1.ServerReflection',
  '/grpc.reflection.v1alpha.ServerReflection',
];

/** Health and reflection as the server knows them: nothing of them is loaded before the first call. */
export interface LazyStandardServices {
  readonly service: Lazy<StandardServices>;
  readonly methods: readonly (readonly [path: string, Method])[];
}

export function createLazyStandardServices(
  options: StandardServicesOptions,
  deps: Deps,
): LazyStandardServices {
  const load = async () => new (await import('./standard-services')).StandardServices(options);
  const service = new Lazy('health or reflection', load, deps);
  return {
    service,
    methods: [
      [`${HEALTH}/Check`, service.one((services, call, request) => services.check(call, request))],
      [`${HEALTH}/Watch`, service.one((services, call, request) => services.watch(call, request))],
      ...REFLECTION.map(
        (name) =>
          [
            `${name}/ServerReflectionInfo`,
            service.many((services, call) => services.reflect(call)),
          ] as const,
      ),
    ],
  };
}
