// A transformer of jest: that of package.json, with the one mutation that KEYTURN_MUTANT holds.
const { createHash } = require('node:crypto');
const { createTransformer } = require('@swc/jest');

/** @type {{ path: string, text: string } | undefined} */
const mutant = process.env.KEYTURN_MUTANT && JSON.parse(process.env.KEYTURN_MUTANT);

module.exports.createTransformer = (options) => {
  const swc = createTransformer(options);
  const textOf = (text, path) => (path === mutant?.path ? mutant.text : text);
  return {
    ...swc,
    process: (text, path, ...rest) => swc.process(textOf(text, path), path, ...rest),
    getCacheKey: (text, path, ...rest) =>
      createHash('sha256')
        .update(swc.getCacheKey(textOf(text, path), path, ...rest))
        .update(path === mutant?.path ? mutant.text : '')
        .digest('hex'),
  };
};
