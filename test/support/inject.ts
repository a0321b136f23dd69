import type { InjectOptions } from '../../agent/inject/options';

/** Options as `keyturn inject` makes them where no flag is given. */
export function injectOptions(changed: Partial<InjectOptions> = {}): InjectOptions {
  return {
    image: 'keyturn:1',
    cas: ['istiod'],
    settings: { ca: 'istiod', 'admin-address': '0.0.0.0:15020' },
    adminPort: 15_020,
    audience: 'istio-ca',
    rootConfigMap: 'istio-ca-root-cert',
    sidecar: 'native',
    resources: {
      cpuRequest: '10m',
      memoryRequest: '48Mi',
      cpuLimit: undefined,
      memoryLimit: '96Mi',
    },
    envoy: undefined,
    ...changed,
  };
}

/** An Envoy of ours that serves mutual TLS for port 8080. */
export const ENVOY_BESIDE: InjectOptions['envoy'] = {
  kind: 'beside',
  image: 'envoy:1',
  bootstrap: {
    trustDomain: 'cluster.local',
    admin: { host: '127.0.0.1', port: 15_000 },
    inbound: {
      listen: { host: '0.0.0.0', port: 8_443 },
      upstream: { host: '127.0.0.1', port: 8_080 },
    },
  },
};
