import { rootCertificates } from 'node:tls';

/**
 * The roots of authorities that come with the runtime, as PEM. A connection that names none is judged by them and by whatever
 * `NODE_EXTRA_CA_CERTS`, `NODE_USE_SYSTEM_CA` or `SSL_CERT_FILE` added before the program began; one that names these is not.
 */
export const runtimeRoots = (): string[] => [...rootCertificates];
