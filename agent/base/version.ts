declare const __KEYTURN_VERSION__: string | undefined;

/** The package's version, set by the build; `dev` where the sources run unbuilt, as in tests. */
export const VERSION: string =
  typeof __KEYTURN_VERSION__ === 'string' ? __KEYTURN_VERSION__ : 'dev';
