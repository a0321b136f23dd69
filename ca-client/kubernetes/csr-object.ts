import { createHash } from 'node:crypto';
import { AgentError, errorText, invalid } from '../../agent/base/errors';
import { writePem } from '../../agent/base/pem';
import { parseCertificates } from '../../agent/identity/certificate';
import { parseCsr } from '../../agent/identity/csr';
import { kubePath } from '../../agent/kube/kube-path';
import type { IssuedChain } from '../ca-client';

export const CSR_PATH = '/apis/certificates.k8s.io/v1/certificatesigningrequests';

export const csrPath = (name: string) =>
  kubePath`/apis/certificates.k8s.io/v1/certificatesigningrequests/${name}`;
/** Of the subresource in which requests are approved and denied. */
export const approvalPath = (name: string) => `${csrPath(name)}/approval`;

/** A CertificateSigningRequest (certificates.k8s.io/v1), as far as we read it. */
export interface KubeCsr {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    /** ISO 8601. */
    readonly creationTimestamp?: string;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec: {
    /** Base64 of PEM. */
    readonly request: string;
    readonly signerName: string;
    readonly expirationSeconds?: number;
    readonly usages?: readonly string[];
    /** Who asks: the API server fills these in, whatever the client wrote. */
    readonly username?: string;
    readonly groups?: readonly string[];
    readonly extra?: Readonly<Record<string, readonly string[]>>;
  };
  readonly status?: {
    readonly conditions?: readonly CsrCondition[];
    /** Base64 of PEM. */
    readonly certificate?: string;
  };
}

export interface CsrCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
}

/**
 * What a certificate may be used for. `by-key`: digital signature, client and server auth, and key encipherment for RSA keys only, for it
 * means that others may encrypt to the key. `istio`: those four whatever the key, for signers that insist on exactly what istiod asks for.
 */
export type CsrUsages = 'by-key' | 'istio';

/** The API refuses less: "may not specify a duration less than 600 seconds". */
const MIN_EXPIRATION_SECONDS = 600;
/** The field is an int32. */
const MAX_EXPIRATION_SECONDS = 2 ** 31 - 1;

/** Of a digest over a fresh public key: nobody meets it by chance. */
const NAME_DIGITS = 32;

/** What is sent. */
export interface CsrBody {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: {
    /** Base64 of PEM. */
    readonly request: string;
    readonly signerName: string;
    readonly expirationSeconds: number;
    readonly usages: readonly string[];
  };
}

/**
 * The object to create for a request.
 *
 * @throws AgentError ERR_CA_REJECTED (retry slow) where the request is none, or asks for less than the API signs.
 */
export function csrBody(
  request: { readonly csrDer: Uint8Array; readonly ttlSeconds: number },
  signerName: string,
  usages: CsrUsages,
): CsrBody {
  const { csrDer, ttlSeconds } = request;
  if (ttlSeconds < MIN_EXPIRATION_SECONDS) {
    throw invalid(
      'ERR_CA_REJECTED',
      'ttl',
      `must be at least ${MIN_EXPIRATION_SECONDS} s, not ${ttlSeconds} s`,
      {
        retry: 'slow',
        hint: 'the Kubernetes API takes no request for less than ten minutes: ask for more, or use another CA',
      },
    );
  }
  const isRsa = usages === 'istio' || hasRsaKey(csrDer);
  return {
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'CertificateSigningRequest',
    // The same request has the same name: sent again, where its answer was lost, it makes no second object.
    metadata: {
      name: `keyturn-${createHash('sha256').update(csrDer).digest('hex').slice(0, NAME_DIGITS)}`,
    },
    spec: {
      request: writePem('CERTIFICATE REQUEST', csrDer).toString('base64'),
      signerName,
      expirationSeconds: Math.min(ttlSeconds, MAX_EXPIRATION_SECONDS),
      usages: [
        'digital signature',
        ...(isRsa ? ['key encipherment'] : []),
        'server auth',
        'client auth',
      ],
    },
  };
}

function hasRsaKey(csrDer: Uint8Array): boolean {
  try {
    return parseCsr(csrDer).publicKey.kind === 'rsa';
  } catch (caught) {
    throw new AgentError('ERR_CA_REJECTED', `ask the Kubernetes API: ${errorText(caught)}`, {
      retry: 'slow',
      cause: caught,
    });
  }
}

/** The condition of that type which holds. */
export function conditionOf(csr: KubeCsr, type: string): CsrCondition | undefined {
  return csr.status?.conditions?.find((each) => each.type === type && each.status !== 'False');
}

/**
 * What the object says so far. A certificate counts whether or not the request was approved: signers may set it first, and the gate judges
 * it in any case.
 *
 * @returns  The chain, or undefined while there is nothing to see yet.
 * @throws   AgentError ERR_CA_REJECTED (retry slow) for Denied and Failed, with their message; ERR_CA_RESPONSE for what is no chain.
 */
export function readCsrAnswer(csr: KubeCsr): IssuedChain | undefined {
  const { name } = csr.metadata;
  for (const type of ['Denied', 'Failed'] as const) {
    const condition = conditionOf(csr, type);
    if (condition) {
      const why = [condition.reason, condition.message].filter((text) => text).join(': ');
      throw new AgentError(
        'ERR_CA_REJECTED',
        `sign ${name} by ${csr.spec.signerName}: ${type.toLowerCase()}${why && `: ${why.slice(0, 500)}`}`,
        {
          retry: 'slow',
          hint:
            type === 'Denied'
              ? 'ask the approver of this signer'
              : 'ask the operator of this signer',
        },
      );
    }
  }
  const { certificate } = csr.status ?? {};
  if (!certificate) return undefined;
  try {
    return {
      certificatesDer: parseCertificates(
        Buffer.from(certificate, 'base64'),
        'status.certificate',
      ).map(({ der }) => der),
    };
  } catch (caught) {
    throw new AgentError(
      'ERR_CA_RESPONSE',
      `read the certificate of ${name}: ${errorText(caught)}`,
      { retry: 'slow', cause: caught },
    );
  }
}
