import { IstioCertificateServiceDefinition } from '../../proto/generated/istio/v1/auth/ca';

const { fullName, methods } = IstioCertificateServiceDefinition;

/**
 * `istio.v1.auth.IstioCertificateService/CreateCertificate`. Messages cross gRPC as bytes, which `messages.ts` reads: a malformed one gets
 * our own answer, and none is decoded before its size is known.
 */
export const CREATE_CERTIFICATE_PATH: string = `/${fullName}/${methods.createCertificate.name}`;

/** The largest message either side takes, bytes. Far more than istiod sends with the largest root bundle in sensible use. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;

/** What `keyturn ca serve` calls itself in the header `server`: whoever it refuses knows whose rules to look at. */
export const SERVER = 'keyturn';
