# syntax=docker/dockerfile:1
#
# keyturn in an image of its own: the program, the C library that it runs on, and nothing else; no shell, no package manager.
#
#   scripts/build --image          or, with any builder:  docker build -t keyturn .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges \
#     --tmpfs /run:uid=1337,gid=1337,mode=0755 -v keyturn-ca:/var/lib/keyturn keyturn run --ca builtin
#
# For other architectures too:  docker buildx build --platform linux/amd64,linux/arm64 -t NAME --push .
# On Node.js instead of the executable that needs none:  --build-arg FORM=node
#
# It runs as 1337:1337, the user of Istio's proxy, so that an Envoy beside it may open a socket of mode 0600. It writes to two places:
# /run (the SDS socket in secrets/workload-spiffe-uds, the control socket in keyturn; /var/run is a link to it) and, with the built-in CA
# or --state-dir, /var/lib/keyturn. The root file system may be read-only, every capability dropped, and the default seccomp profile kept.
# Health and metrics listen on loopback; for probes from outside the container add --admin-address 0.0.0.0:15020.

ARG BUILD_IMAGE=docker.io/library/node:22-bookworm-slim

FROM ${BUILD_IMAGE} AS build
# Roots for --ca-root SYSTEM; the slim images have none.
RUN test -s /etc/ssl/certs/ca-certificates.crt \
 || (apt-get update && apt-get install --yes --no-install-recommends ca-certificates)
WORKDIR /src
# Packages first: they change less often than sources.
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY LICENSE tsconfig.json ./
COPY scripts scripts
COPY agent agent
COPY ca-client ca-client
COPY sds sds
# The runtime is the one that is pinned here and that the tests ran on.
ARG FORM=standalone
RUN scripts/build $([ "$FORM" = node ] || echo "--$FORM") && scripts/lib/image-root.sh "$FORM" /image

FROM scratch
COPY --from=build /image/ /
# One malloc arena: the agent's work is on one thread.
ENV MALLOC_ARENA_MAX=1
# Relative paths of the settings are relative to this.
WORKDIR /
USER 1337:1337
EXPOSE 15020
STOPSIGNAL SIGTERM
# Asks the control socket; 75 while there is no certificate, 69 while nobody answers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["/usr/local/bin/keyturn", "status", "--output", "json"]
ENTRYPOINT ["/usr/local/bin/keyturn"]
CMD ["run"]
