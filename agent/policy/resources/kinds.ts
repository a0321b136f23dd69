import { notName } from './fields';
import type { ResourceKind } from './resource';
import {
  anything,
  boolean,
  choice,
  duration,
  integer,
  list,
  map,
  message,
  type Shape,
  text,
} from './shapes';

/** A kind of resource: where it comes from, and what its `spec` may hold. */
export interface Kind {
  readonly group: string;
  readonly versions: readonly string[];
  readonly spec: Shape;
}

const SECURITY = 'security.istio.io';
const NETWORKING = 'networking.istio.io';

/** The groups whose every kind is taken or refused: one that is passed over would not do what it says. */
export const ISTIO_GROUPS: readonly string[] = [
  SECURITY,
  NETWORKING,
  'telemetry.istio.io',
  'extensions.istio.io',
];

const selector = message({ matchLabels: map(text) });
const targetRef = message({ group: text, kind: text, name: text, namespace: text });
const texts = list(text);

const mtls = message({ mode: choice('UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT') });

const peerAuthentication = message({ selector, mtls, portLevelMtls: map(mtls) });

const requestAuthentication = message({
  selector,
  targetRef,
  targetRefs: list(targetRef),
  jwtRules: list(
    message({
      issuer: text,
      audiences: texts,
      jwksUri: text,
      jwks: text,
      fromHeaders: list(message({ name: text, prefix: text })),
      fromParams: texts,
      fromCookies: texts,
      outputPayloadToHeader: text,
      outputClaimToHeaders: list(message({ header: text, claim: text })),
      forwardOriginalToken: boolean,
      spaceDelimitedClaims: texts,
      timeout: duration,
    }),
  ),
});

/** A field of texts and its opposite. */
function both(...names: string[]): Record<string, Shape> {
  return Object.fromEntries(
    names.flatMap((name) => [
      [name, texts],
      [notName(name), texts],
    ]),
  );
}

const authorizationPolicy = message({
  selector,
  targetRef,
  targetRefs: list(targetRef),
  action: choice('ALLOW', 'DENY', 'AUDIT', 'CUSTOM'),
  provider: message({ name: text }),
  rules: list(
    message({
      from: list(
        message({
          source: message(
            both(
              'principals',
              'requestPrincipals',
              'namespaces',
              'serviceAccounts',
              'trustDomains',
              'ipBlocks',
              'remoteIpBlocks',
            ),
          ),
        }),
      ),
      to: list(message({ operation: message(both('hosts', 'ports', 'methods', 'paths')) })),
      when: list(message({ key: text, values: texts, notValues: texts })),
    }),
  ),
});

const port = message({ number: integer, protocol: text, name: text, targetPort: integer });
const captureMode = choice('DEFAULT', 'IPTABLES', 'NONE');
const labels = message({ labels: map(text) });

const serverTls = message({
  mode: choice(
    'PASSTHROUGH',
    'SIMPLE',
    'MUTUAL',
    'AUTO_PASSTHROUGH',
    'ISTIO_MUTUAL',
    'OPTIONAL_MUTUAL',
  ),
  httpsRedirect: boolean,
  serverCertificate: text,
  privateKey: text,
  caCertificates: text,
  caCrl: text,
  credentialName: text,
  credentialNames: texts,
  caCertCredentialName: text,
  tlsCertificates: anything,
  subjectAltNames: texts,
  verifyCertificateSpki: texts,
  verifyCertificateHash: texts,
  minProtocolVersion: choice('TLS_AUTO', 'TLSV1_0', 'TLSV1_1', 'TLSV1_2', 'TLSV1_3'),
  maxProtocolVersion: choice('TLS_AUTO', 'TLSV1_0', 'TLSV1_1', 'TLSV1_2', 'TLSV1_3'),
  cipherSuites: texts,
});

const sidecar = message({
  workloadSelector: labels,
  ingress: list(
    message({
      port,
      bind: text,
      captureMode,
      defaultEndpoint: text,
      tls: serverTls,
      connectionPool: anything,
    }),
  ),
  egress: list(message({ port, bind: text, captureMode, hosts: texts })),
  inboundConnectionPool: anything,
  outboundTrafficPolicy: message({
    mode: choice('REGISTRY_ONLY', 'ALLOW_ANY'),
    egressProxy: message({ host: text, subset: text, port: message({ number: integer }) }),
  }),
});

const workloadEntry = {
  address: text,
  ports: map(integer),
  labels: map(text),
  network: text,
  locality: text,
  weight: integer,
  serviceAccount: text,
};

const serviceEntry = message({
  hosts: texts,
  addresses: texts,
  ports: list(port),
  location: choice('MESH_EXTERNAL', 'MESH_INTERNAL'),
  resolution: choice('NONE', 'STATIC', 'DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'),
  endpoints: list(message(workloadEntry)),
  workloadSelector: labels,
  exportTo: texts,
  subjectAltNames: texts,
});

const clientTls = message({
  mode: choice('DISABLE', 'SIMPLE', 'MUTUAL', 'ISTIO_MUTUAL'),
  clientCertificate: text,
  privateKey: text,
  caCertificates: text,
  credentialName: text,
  subjectAltNames: texts,
  sni: text,
  insecureSkipVerify: boolean,
  caCrl: text,
});

const traffic = {
  loadBalancer: anything,
  connectionPool: anything,
  outlierDetection: anything,
  retryBudget: anything,
  tls: clientTls,
};
const trafficPolicy = message({
  ...traffic,
  portLevelSettings: list(message({ ...traffic, port: message({ number: integer }) })),
  tunnel: anything,
  proxyProtocol: anything,
});

const destinationRule = message({
  host: text,
  trafficPolicy,
  subsets: list(message({ name: text, labels: map(text), trafficPolicy })),
  exportTo: texts,
  workloadSelector: selector,
});

const security = (spec: Shape): Kind => ({ group: SECURITY, versions: ['v1', 'v1beta1'], spec });
const networking = (spec: Shape): Kind => ({
  group: NETWORKING,
  versions: ['v1', 'v1beta1', 'v1alpha3'],
  spec,
});

/** @see istio.io/api, security/v1beta1 and networking/v1alpha3 */
export const KINDS: Readonly<Record<ResourceKind, Kind>> = {
  AuthorizationPolicy: security(authorizationPolicy),
  PeerAuthentication: security(peerAuthentication),
  RequestAuthentication: security(requestAuthentication),
  DestinationRule: networking(destinationRule),
  ServiceEntry: networking(serviceEntry),
  Sidecar: networking(sidecar),
  WorkloadEntry: networking(message(workloadEntry)),
};

/** What Kubernetes writes into `metadata`; only names, labels, annotations and the time are read. */
export const METADATA: Shape = message({
  name: text,
  namespace: text,
  labels: map(text),
  annotations: map(text),
  creationTimestamp: anything,
  generateName: text,
  uid: text,
  resourceVersion: text,
  generation: anything,
  selfLink: text,
  managedFields: anything,
  ownerReferences: anything,
  finalizers: anything,
  deletionTimestamp: anything,
  deletionGracePeriodSeconds: anything,
});
