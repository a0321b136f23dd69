import { invalid } from '../base/errors';

type Labels = Readonly<Record<string, string>>;

/**
 * Reads `app=reviews,version=v1`; an empty text says that there are no labels.
 *
 * @throws AgentError ERR_CONFIG whose `field` is the one given.
 * @see Kubernetes, "Labels and Selectors", syntax and character set
 */
export function parsePolicyLabels(text: string, field: string): Labels {
  const pairs = text
    .split(',')
    .map((each) => each.trim())
    .filter((each) => each !== '');
  return labelsOf(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 0)
        throw invalid('ERR_CONFIG', field, `${JSON.stringify(pair)} must be NAME=VALUE`, {
          hint: 'such as app=reviews,version=v1',
        });
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
    field,
  );
}

/**
 * Reads what the downward API writes for `metadata.labels`: `app="reviews"`, one a line.
 *
 * @throws AgentError ERR_CONFIG whose `field` is the one given.
 * @see Kubernetes, "Expose Pod Information to Containers Through Files"
 */
export function parseDownwardLabels(text: string, field: string): Labels {
  const lines = text.split(/\r?\n/).filter((each) => each.trim() !== '');
  return labelsOf(
    lines.map((line) => {
      const [, name, value] = /^([^=]+)="([^"\\]*)"$/.exec(line.trim()) ?? [];
      if (name === undefined || value === undefined)
        throw invalid(
          'ERR_CONFIG',
          field,
          `${JSON.stringify(line.slice(0, 80))} must be NAME="VALUE"`,
          {
            hint: 'mount metadata.labels by a downwardAPI volume',
          },
        );
      return [name, value];
    }),
    field,
  );
}

/** An optional DNS name and a slash, then a name; a value is a name or empty. */
const LABEL_NAME =
  /^([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$/;
const LABEL_VALUE = /^([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?$/;

function labelsOf(pairs: readonly (readonly [string, string])[], field: string): Labels {
  const found = new Map<string, string>();
  for (const [name, value] of pairs) {
    if (!LABEL_NAME.test(name))
      throw invalid('ERR_CONFIG', field, `${JSON.stringify(name)} is no name of a label`);
    if (!LABEL_VALUE.test(value))
      throw invalid('ERR_CONFIG', field, `${JSON.stringify(value)} is no value of a label`);
    if (found.has(name)) throw invalid('ERR_CONFIG', field, `names ${name} twice`);
    found.set(name, value);
  }
  return Object.fromEntries(found);
}
