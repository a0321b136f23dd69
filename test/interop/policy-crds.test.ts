import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { readPolicies } from '../../agent/policy/read-policies';
import { formatProblem } from '../../agent/policy/resources/problem';
import { peerPath } from '../support/peer-path';
import { describeWith } from '../support/peers';

/** What our refusal must say, by a part of what the API server says. */
const REASONS: readonly (readonly [theirs: RegExp, ours: RegExp])[] = [
  [/only one of targetRefs or selector/, /only one of selector, targetRef and targetRefs/],
  [/targetRef.name: Required/, /targetRef\.name must not be empty/],
  [/cross namespace referencing/, /namespace must be absent/],
  [/targetRef\.(group|kind) in body should match/, /targetRef\.kind must be one of/],
  [/must be of type object/, /must not be empty/],
  [/should be at least 1 chars long|: Required value/, /must not be empty|must have at least one/],
  [/url must have scheme/, /must be an http or https URL/],
  [/header in body should match/, /must be a header name/],
  [/must be a valid duration/, /must be a duration/],
  [/Cannot set serviceAccounts/, /must not set serviceAccounts with/],
  [/Unsupported value: "BLAH"/, /must be one of .*, not BLAH/],
  [/type conversion error|between 1-65535/, /must be (a port, )?1 to 65535/],
  [/portLevelMtls requires selector/, /portLevelMtls needs a selector/],
  [/at least 1 properties/, /must have at least one port/],
];

const KINDS = ['authz', 'peerauth', 'reqauth', 'serviceentry', 'workloadentry', 'destinationrule'];
/** What shapes traffic is not read; an address that YAML takes for a mapping is refused. */
const LEFT_OUT = /warmup|001:db8::\]/;

describeWith('istio-api')("the documents of the API's own tests", () => {
  const folder = peerPath('istio-api')!;

  test.each(KINDS)('%s: valid ones are taken', (kind) => {
    for (const { document } of documents(`${kind}-valid`))
      expect([document, refusals(document)]).toEqual([document, '']);
  });

  test.each(KINDS)('%s: invalid ones are refused, for the same reason', (kind) => {
    for (const { document, error } of documents(`${kind}-invalid`)) {
      expect([document, refusals(document)]).not.toEqual([document, '']);
      const same = REASONS.find(([theirs]) => theirs.test(error));
      if (same) expect(refusals(document)).toMatch(same[1]);
      // Of the kinds that guard a workload every reason is compared.
      else expect(['serviceentry', 'workloadentry', 'destinationrule']).toContain(kind);
    }
  });

  function documents(name: string) {
    return readFileSync(join(folder, 'crds', `${name}.yaml`), 'utf8')
      .split(/^---\n/m)
      .map((text) => ({
        error: /^_err: (.*(?:\n {2}.*)*)$/m.exec(text)?.[1] ?? '',
        document: text.replace(/^_err:.*(\n {2}.*)*\n/m, ''),
      }))
      .filter(({ document }) => document.trim() !== '' && !LEFT_OUT.test(document));
  }
});

function refusals(document: string): string {
  const { problems } = readPolicies([{ name: 'crd.yaml', bytes: Buffer.from(document) }]);
  return problems.map(formatProblem).join('\n');
}
