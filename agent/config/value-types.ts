import { assertFileName } from '../base/assert-file-name';
import { parseDuration } from '../base/duration';
import { AgentError, invalid } from '../base/errors';
import { parseHostPort } from '../base/host-port';
import { suggestion } from '../base/suggestion';
import { parseSpiffeId, parseTrustDomain, serviceAccountId } from '../identity/spiffe-id';

/** How one kind of value is read from text and described to people. */
export interface ValueType<T> {
  /** In help, e.g. `duration` for `--ttl <duration>`. */
  readonly placeholder: string;
  /** What is accepted, for the table of settings. */
  readonly description: string;
  /** The accepted words, where there is a closed list of them. */
  readonly choices: readonly string[] | undefined;
  /** What a shell may offer where there is no closed list. */
  readonly completes: 'file' | 'directory' | undefined;
  /** Given several times, or with commas. */
  readonly many: boolean;
  /** How the text is shown, where that is not as it is. */
  readonly shown?: (text: string) => string;
  /** @throws AgentError ERR_CONFIG or ERR_IDENTITY_INVALID whose `field` is the one given. */
  readonly parse: (text: string, field: string) => T;
}

/** No value is longer than this many characters: longer ones are accidents, and errors quote values. */
export const MAX_VALUE = 4_096;

/** One of a closed list of words. `elsewhere` explains words that people have reason to expect but that are not in the list. */
export function choice<const C extends string>(
  choices: readonly C[],
  placeholder: string,
  elsewhere: Readonly<Record<string, { rule: string; hint: string }>> = {},
): ValueType<C> {
  return {
    ...plain(placeholder, choices.map((each) => `\`${each}\``).join(', ')),
    choices,
    parse: (text, field) => {
      const found = choices.find((each) => each === text);
      if (found !== undefined) return found;
      const known = Object.hasOwn(elsewhere, text) ? elsewhere[text] : undefined;
      if (known) throw invalid('ERR_CONFIG', field, known.rule, { hint: known.hint });
      const near = suggestion(text, choices);
      throw invalid(
        'ERR_CONFIG',
        field,
        `${quote(text)} is not one of ${choices.join(', ')}`,
        near ? { hint: `did you mean ${near}?` } : {},
      );
    },
  };
}

/**
 * Several of a closed list of words, in order, each once.
 *
 * @param aliases  What others call them, e.g. upstream's `Citadel`.
 */
export function choiceList<const C extends string>(
  choices: readonly C[],
  placeholder: string,
  aliases: Readonly<Record<string, C>> = {},
): ValueType<readonly C[]> {
  const one = choice(choices, placeholder);
  return {
    ...one,
    description: `${one.description}, or several in order, separated by commas`,
    many: true,
    parse: (text, field) => {
      const list = text.split(',').map((each) => {
        const word = each.trim();
        return (Object.hasOwn(aliases, word) ? aliases[word] : undefined) ?? one.parse(word, field);
      });
      const twice = list.find((each, index) => list.indexOf(each) !== index);
      if (twice !== undefined) throw invalid('ERR_CONFIG', field, `names ${twice} twice`);
      return list;
    },
  };
}

/** A duration between two bounds, both included. */
export function duration(bounds: { atLeast: string; atMost: string }): ValueType<number> {
  return {
    ...plain('duration', `duration, ${bounds.atLeast} to ${bounds.atMost}`),
    parse: (text, field) => {
      const ms = parseDuration(text, field);
      const refuse = (rule: string) =>
        invalid('ERR_CONFIG', field, `${quote(text)} ${rule}`, {
          hint: `between ${bounds.atLeast} and ${bounds.atMost}`,
        });
      if (ms < parseDuration(bounds.atLeast, 'bound'))
        throw refuse(`is shorter than ${bounds.atLeast}`);
      if (ms > parseDuration(bounds.atMost, 'bound'))
        throw refuse(`is longer than ${bounds.atMost}`);
      return ms;
    },
  };
}

/** Whether a text is digits with at most one point, no exponent or sign. */
export const isPlainNumber = (text: string): boolean =>
  /^\d{0,9}(?:\.\d{1,12})?$/.test(text) && text !== '';

/** A number from 0 to 1; the ends only where `ends` says so. */
export function fraction(ends: { zero: boolean }): ValueType<number> {
  const rule = ends.zero
    ? 'must be at least 0 and less than 1'
    : 'must be more than 0 and less than 1';
  return {
    ...plain(
      'ratio',
      `number, ${ends.zero ? '0 or' : ''} more than 0 and less than 1`.replace('  ', ' '),
    ),
    parse: (text, field) => {
      if (!isPlainNumber(text))
        throw invalid('ERR_CONFIG', field, `${quote(text)} is not a plain number, e.g. 0.5`);
      const value = Number(text);
      if (value >= 1 || (value === 0 && !ends.zero))
        throw invalid('ERR_CONFIG', field, `${quote(text)} ${rule}`);
      return value;
    },
  };
}

/** A path, relative ones to the working directory. Nothing is looked up when it is read. */
export function path(completes: 'file' | 'directory'): ValueType<string> {
  return {
    ...plain(
      completes === 'directory' ? 'dir' : 'path',
      completes === 'directory' ? 'directory' : 'path',
    ),
    completes,
    parse: (text, field) => {
      if (text.length === 0) throw invalid('ERR_CONFIG', field, 'must not be empty');
      if (hasControl(text)) throw invalid('ERR_CONFIG', field, 'must not have control characters');
      assertFileName(text, 'ERR_CONFIG', field);
      return text;
    },
  };
}

/** A path, or an `http` or `https` URL. */
export function pathOrUrl(): ValueType<string> {
  const file = path('file');
  return {
    ...file,
    description: 'path, or http or https URL',
    parse: (text, field) => {
      const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
      if (scheme === undefined) return file.parse(text, field);
      if (['http', 'https'].includes(scheme) && URL.canParse(text)) return text;
      throw invalid(
        'ERR_CONFIG',
        field,
        `${quote(text)} is not a path and not an http or https URL`,
      );
    },
  };
}

/** A word of a foreign vocabulary, such as the name of a cluster. */
export function word(placeholder: string, description: string): ValueType<string> {
  return {
    ...plain(placeholder, description),
    parse: (text, field) => {
      if (text.length === 0) throw invalid('ERR_CONFIG', field, 'must not be empty');
      if (!/^[!-~]{1,253}$/.test(text))
        throw invalid(
          'ERR_CONFIG',
          field,
          `${quote(text)} is not 1 to 253 printable ASCII characters without blanks`,
        );
      return text;
    },
  };
}

/** A signer of the Kubernetes CSR API, `domain/path`. Those of Kubernetes itself sign for the cluster, never for workloads. */
export const signerName: ValueType<string> = {
  ...plain('name', 'a domain and a path, e.g. `clusterissuers.cert-manager.io/istio-ca`'),
  parse: (text, field) => {
    if (
      text.length > 571 ||
      !/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?\/[A-Za-z0-9][-A-Za-z0-9.:_]*$/.test(text)
    )
      throw invalid('ERR_CONFIG', field, `${quote(text)} is not a domain and a path`, {
        hint: 'e.g. clusterissuers.cert-manager.io/istio-ca',
      });
    if (text.startsWith('kubernetes.io/'))
      throw invalid(
        'ERR_CONFIG',
        field,
        `${quote(text)} signs for the cluster itself, never for workloads`,
      );
    return text;
  },
};

/** Several directories: the option again, or commas, or a list in the file. */
export const directories: ValueType<readonly string[]> = {
  ...plain('dir', 'directories, separated by commas'),
  completes: 'directory',
  many: true,
  parse: (text, field) =>
    text.split(',').map((each) => path('directory').parse(each.trim(), field)),
};

/** Permission bits of a socket, in octal; executable bits mean nothing on a socket, and its owner must be able to use it. */
export const socketMode: ValueType<number> = {
  ...plain('mode', 'octal mode, e.g. `0600`, `0660`, `0666`'),
  parse: (text, field) => {
    const refuse = (rule: string) =>
      invalid('ERR_CONFIG', field, `${quote(text)} ${rule}`, { hint: 'e.g. 0600, 0660 or 0666' });
    if (!/^(?:0|0o)?[0-7]{3}$/.test(text)) throw refuse('is not an octal mode of three digits');
    const mode = Number.parseInt(text.slice(-3), 8);
    if ((mode & 0o111) !== 0) throw refuse('must not have executable bits');
    if ((mode & 0o600) !== 0o600) throw refuse('must let the owner read and write');
    return mode;
  },
};

/** A group by name or number. Whether it exists is known when the socket is made. */
export const group = account('group');

/** A user, likewise. */
export const user = account('user');

function account(what: 'user' | 'group'): ValueType<string> {
  return {
    ...plain(what, `${what} name or number`),
    parse: (text, field) => {
      if (
        !/^(?:\d{1,10}|[a-zA-Z_][a-zA-Z0-9_.-]{0,31}\$?)$/.test(text) ||
        Number(text) >= 2 ** 32 - 1
      )
        throw invalid('ERR_CONFIG', field, `${quote(text)} is not a ${what} name or number`);
      return text;
    },
  };
}

export const hostPort: ValueType<string> = {
  ...plain('host:port', 'host:port; port 0 takes a free one'),
  parse: (text, field) => {
    parseHostPort(text, field);
    return text;
  },
};

/** Where others listen, one or several. */
export const addresses: ValueType<readonly string[]> = {
  ...plain('host:port', 'host:port'),
  many: true,
  parse: (text, field) =>
    text.split(',').map((each) => {
      const address = each.trim();
      if (parseHostPort(address, field).port === 0)
        throw invalid('ERR_CONFIG', field, `${quote(address)} must have a port other than 0`);
      return address;
    }),
};

/** Headers as `name=value`. A comma separates two only where a name and `=` follow it, so that values may have commas. */
export const headers: ValueType<ReadonlyMap<string, string>> = {
  ...plain('name=value', '`name=value`, separated by commas'),
  many: true,
  // A value may be a secret.
  shown: (text) =>
    splitHeaders(text)
      .map((each) => each.replace(/=.*$/s, '=[redacted]'))
      .join(','),
  parse: (text, field) => {
    const found = new Map<string, string>();
    for (const each of splitHeaders(text)) {
      const [, name, value] = /^([A-Za-z0-9_.-]{1,100})=([ -~]*)$/.exec(each) ?? [];
      if (name === undefined || value === undefined)
        throw invalid('ERR_CONFIG', field, 'must be name=value in printable ASCII');
      if (found.has(name.toLowerCase())) throw invalid('ERR_CONFIG', field, `names ${name} twice`);
      found.set(name.toLowerCase(), value);
    }
    return found;
  },
};

/** Places by trust domain, as `TRUST-DOMAIN=FILE` or `=URL`. A comma separates two only where a name and `=` follow it. */
export const bundlePlaces: ValueType<ReadonlyMap<string, string>> = {
  ...plain('td=place', '`TRUST-DOMAIN=FILE` or `TRUST-DOMAIN=URL`, separated by commas'),
  many: true,
  parse: (text, field) => {
    const found = new Map<string, string>();
    for (const each of text.split(/,(?=[a-z0-9._-]+=)/)) {
      const at = each.indexOf('=');
      if (at < 0)
        throw invalid(
          'ERR_CONFIG',
          field,
          `${quote(each)} is not TRUST-DOMAIN=FILE or TRUST-DOMAIN=URL`,
        );
      const name = trustDomain.parse(each.slice(0, at), field);
      if (found.has(name)) throw invalid('ERR_CONFIG', field, `names ${name} twice`);
      found.set(name, pathOrUrl().parse(each.slice(at + 1), field));
    }
    return found;
  },
};

const splitHeaders = (text: string) => text.split(/,(?=[A-Za-z0-9_.-]+=)/);

export const trustDomain: ValueType<string> = {
  ...plain('name', 'trust domain, e.g. `cluster.local`'),
  parse: (text, field) => renamed(text, field, () => parseTrustDomain(text)),
};

export const trustDomains: ValueType<readonly string[]> = {
  ...plain('names', 'trust domains, separated by commas'),
  many: true,
  parse: (text, field) => text.split(',').map((each) => trustDomain.parse(each.trim(), field)),
};

/** One segment of a SPIFFE ID's path, as a namespace or a service account is. */
export const segment: ValueType<string> = {
  ...plain('name', 'one path segment of a SPIFFE ID'),
  parse: (text, field) => {
    renamed(text, field, () => serviceAccountId('td', text, 'sa'));
    return text;
  },
};

export const spiffeId: ValueType<string> = {
  ...plain('id', 'SPIFFE ID'),
  parse: (text, field) => {
    renamed(text, field, () => parseSpiffeId(text));
    return text;
  },
};

/** Quotes a value in an error, shortened: whoever reads it knows what they typed. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text);
}

function plain(placeholder: string, description: string): Omit<ValueType<never>, 'parse'> {
  return { placeholder, description, choices: undefined, completes: undefined, many: false };
}

/** Lets an identity error name where the value came from, and which part of it is wrong. */
function renamed<T>(text: string, field: string, parse: () => T): T {
  try {
    return parse();
  } catch (caught) {
    const error = AgentError.from(caught);
    const part = text.startsWith('spiffe:') && error.field ? `${error.field} ` : '';
    throw invalid(
      error.code,
      field,
      `${quote(text)}: ${part}${error.rule ?? error.message}`,
      error.hint === undefined ? {} : { hint: error.hint },
    );
  }
}

function hasControl(text: string): boolean {
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code < 0x20 || code === 0x7f) return true;
  }
  return false;
}
