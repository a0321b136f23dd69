import { invalid } from '../base/errors';
import { isPlainNumber, quote } from './value-types';

/** Environment variables by name; empty ones count as unset and are not here. */
export type Environment = Readonly<Record<string, string>>;

/** Istio's environment names for a setting of ours, and how their text becomes our text. */
export interface UpstreamNames {
  readonly names: readonly string[];
  /** What the table of settings says about a meaning that is not simply equal. */
  readonly note: string | undefined;
  /**
   * @returns our text and the variable that it came from; undefined where the variables say nothing about this setting.
   * @throws  AgentError ERR_CONFIG naming the variable.
   */
  readonly read: (env: Environment) => { readonly text: string; readonly name: string } | undefined;
}

/** The same meaning and the same form. */
export function sameAs(name: string): UpstreamNames {
  return { names: [name], note: undefined, read: (env) => found(name, env[name]) };
}

/** SECRET_GRACE_PERIOD_RATIO: the share of life that is left at renewal, where ours is the share that is gone. */
export const gracePeriodRatio: UpstreamNames = {
  names: ['SECRET_GRACE_PERIOD_RATIO'],
  note: '1 - the value',
  read: (env) => {
    const name = 'SECRET_GRACE_PERIOD_RATIO';
    const text = env[name];
    if (text === undefined) return undefined;
    if (!isPlainNumber(text))
      throw invalid(
        'ERR_CONFIG',
        `environment ${name}`,
        `${quote(text)} is not a plain number, e.g. 0.5`,
      );
    const left = Number(text);
    if (!(left > 0 && left < 1))
      throw invalid(
        'ERR_CONFIG',
        `environment ${name}`,
        `${quote(text)} must be more than 0 and less than 1`,
      );
    // Rounded, because 1 - 0.7 is 0.30000000000000004.
    return { name, text: String(Number((1 - left).toFixed(12))) };
  },
};

/** PKCS8_KEY: `true` is PKCS#8, `false` the older forms. Unset means PKCS#8 here. */
export const pkcs8Key: UpstreamNames = {
  names: ['PKCS8_KEY'],
  note: '`true` is pkcs8, `false` traditional',
  read: (env) => {
    const wanted = readBoolean(env, 'PKCS8_KEY');
    return wanted === undefined
      ? undefined
      : { name: 'PKCS8_KEY', text: wanted ? 'pkcs8' : 'traditional' };
  },
};

/**
 * FILE_MOUNTED_CERTS: `true` chooses mounted files, `false` says nothing about which CA. CA_PROVIDER and CA_ADDR count only where no
 * mounted certificates are found: see `chooseCa`.
 */
export const fileMountedCerts: UpstreamNames = {
  names: ['FILE_MOUNTED_CERTS', 'CA_PROVIDER'],
  note: '`true` is file; `Citadel` is istiod',
  read: (env) =>
    readBoolean(env, 'FILE_MOUNTED_CERTS')
      ? { name: 'FILE_MOUNTED_CERTS', text: 'file' }
      : undefined,
};

/** CA_ROOT_CA; where it is not set, PILOT_CERT_PROVIDER `custom` means the root of the older directory. Other providers say nothing here. */
export const caRootNames: UpstreamNames = {
  names: ['CA_ROOT_CA', 'PILOT_CERT_PROVIDER'],
  note: '`custom` is ./etc/certs/root-cert.pem',
  read: (env) =>
    found('CA_ROOT_CA', env.CA_ROOT_CA) ??
    (env.PILOT_CERT_PROVIDER === 'custom'
      ? { text: './etc/certs/root-cert.pem', name: 'PILOT_CERT_PROVIDER' }
      : undefined),
};

const WORKLOAD_SOCKET_DIR = './var/run/secrets/workload-spiffe-uds';

/**
 * WORKLOAD_IDENTITY_SOCKET_FILE: the name by which Istio's agent and its Envoy look for the SDS server of somebody else, in the directory
 * where theirs is called `socket`. A name, as for them, not a path.
 */
export const workloadSocketFile: UpstreamNames = {
  names: ['WORKLOAD_IDENTITY_SOCKET_FILE'],
  note: 'a name in that directory',
  read: (env) => {
    const name = 'WORKLOAD_IDENTITY_SOCKET_FILE';
    const file = env[name];
    if (file === undefined) return undefined;
    if (file.includes('/') || file === '.' || file === '..')
      throw invalid('ERR_CONFIG', `environment ${name}`, `${quote(file)} is not a file name`);
    return { name, text: `${WORKLOAD_SOCKET_DIR}/${file}` };
  },
};

/** Which variable says that Istio's agent runs beside us, in the same pod or on the same machine; undefined where none does. */
export function besideIstioAgent(env: Environment): string | undefined {
  return ['WORKLOAD_IDENTITY_SOCKET_FILE', 'PROXY_CONFIG'].find((name) => env[name] !== undefined);
}

const HEADER_PREFIX = 'CA_HEADER_';

/** CA_HEADER_NAME: the rest of the variable's name is the header's. */
export const caHeaders: UpstreamNames = {
  names: ['CA_HEADER_*'],
  note: 'one each',
  read: (env) => {
    const names = Object.keys(env).filter(
      (name) => name.startsWith(HEADER_PREFIX) && name !== HEADER_PREFIX,
    );
    const text = names.map((name) => `${name.slice(HEADER_PREFIX.length)}=${env[name]}`).join(',');
    return names.length === 0 ? undefined : { text, name: names.join(', ') };
  },
};

/**
 * ECC_SIGNATURE_ALGORITHM wins over WORKLOAD_RSA_KEY_SIZE, as upstream. A lone ECC_CURVE chooses its curve: upstream would ignore it and
 * make RSA, ours makes ECDSA anyway.
 */
export const keyAlgorithmNames: UpstreamNames = {
  names: ['ECC_SIGNATURE_ALGORITHM', 'ECC_CURVE', 'WORKLOAD_RSA_KEY_SIZE'],
  note: 'ECDSA wins where both are set',
  read: (env) => {
    const algorithm = env.ECC_SIGNATURE_ALGORITHM;
    const size = env.WORKLOAD_RSA_KEY_SIZE;
    if (algorithm !== undefined) {
      if (algorithm !== 'ECDSA')
        throw invalid(
          'ERR_CONFIG',
          'environment ECC_SIGNATURE_ALGORITHM',
          `${quote(algorithm)} is not ECDSA`,
        );
      return { name: 'ECC_SIGNATURE_ALGORITHM', text: curve(env) ?? 'ecdsa-p256' };
    }
    if (size !== undefined) return { name: 'WORKLOAD_RSA_KEY_SIZE', text: rsa(size) };
    return found('ECC_CURVE', curve(env));
  },
};

function curve(env: Environment): string | undefined {
  const name = env.ECC_CURVE;
  if (name === undefined) return undefined;
  if (name !== 'P256' && name !== 'P384')
    throw invalid('ERR_CONFIG', 'environment ECC_CURVE', `${quote(name)} is not one of P256, P384`);
  return `ecdsa-${name.toLowerCase()}`;
}

function rsa(size: string): string {
  if (!['2048', '3072', '4096'].includes(size))
    throw invalid(
      'ERR_CONFIG',
      'environment WORKLOAD_RSA_KEY_SIZE',
      `${quote(size)} is not one of 2048, 3072, 4096`,
    );
  return `rsa-${size}`;
}

/** Go's strconv.ParseBool, which reads upstream's booleans. */
function readBoolean(env: Environment, name: string): boolean | undefined {
  const text = env[name];
  if (text === undefined) return undefined;
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false;
  throw invalid('ERR_CONFIG', `environment ${name}`, `${quote(text)} is not true or false`);
}

function found(name: string, text: string | undefined): { text: string; name: string } | undefined {
  return text === undefined ? undefined : { text, name };
}
