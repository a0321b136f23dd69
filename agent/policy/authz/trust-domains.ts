/**
 * The trust domain of a mesh and its other names, as principals of policies are rewritten by them.
 *
 * @see Istio, "Trust Domain Migration"; istio pilot/pkg/security/trustdomain
 */
export class TrustDomains {
  /** The mesh's own first. */
  constructor(private readonly names: readonly string[]) {}

  /**
   * Each principal in one of our trust domains, or in `cluster.local`, which stands for ours, once for
   * each of our names. Others stay: `*`, another's, and what has not the form of an identity.
   */
  expandPrincipals(principals: readonly string[]): string[] {
    return principals.flatMap((principal) => {
      const parts = principal.split('/');
      const [named] = parts;
      if (parts.length !== IDENTITY_PARTS || named === undefined || named === '*') return principal;
      if (!this.#isOurs(named) && named !== LOCAL) return principal;
      const expanded = this.names.map((name) =>
        // `*-td` matches what it stands for without help.
        endsAs(name, named) ? principal : [name, ...parts.slice(1)].join('/'),
      );
      return [...new Set(expanded)];
    });
  }

  /** A value that is one of our names stands for all of them. */
  expandNames(values: readonly string[]): string[] {
    return [...new Set(values.flatMap((each) => (this.names.includes(each) ? this.names : each)))];
  }

  #isOurs(named: string): boolean {
    return this.names.some(
      (name) =>
        name === named ||
        name === '*' ||
        beginsAs(named, name) ||
        beginsAs(name, named) ||
        endsAs(named, name) ||
        endsAs(name, named),
    );
  }
}

/** TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT. */
const IDENTITY_PARTS = 5;
const LOCAL = 'cluster.local';

const beginsAs = (text: string, pattern: string) =>
  pattern.endsWith('*') && text.startsWith(pattern.slice(0, -1));
const endsAs = (text: string, pattern: string) =>
  pattern.startsWith('*') && text.endsWith(pattern.slice(1));
