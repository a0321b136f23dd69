/**
 * A plugin for esbuild and for Bun that leaves out what no program of ours can reach. grpc-js can serve its own statistics, over Channelz
 * and ORCA; that needs a parser of .proto files, 140 KB, which is not part of this program.
 */
export function withoutStatistics() {
  return {
    name: 'without-statistics',
    setup({ onResolve, onLoad }) {
      const leftOut = (path) => ({ path, namespace: 'left-out' });
      onResolve({ filter: /^@grpc\/proto-loader$/ }, ({ path }) => leftOut(path));
      onLoad({ filter: /.*/, namespace: 'left-out' }, () => ({
        contents: 'module.exports = {};',
        loader: 'js',
      }));
    },
  };
}
