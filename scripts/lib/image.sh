# shellcheck shell=bash
# Builds the Dockerfile with whatever there is to build one; sourced by scripts/build and scripts/peers.

# image_engine: prints the builder that works here.
image_engine() {
  local each
  for each in docker podman buildah; do
    case "$each" in
      buildah) if buildah --version >/dev/null 2>&1; then echo buildah && return 0; fi ;;
      *) if "$each" info >/dev/null 2>&1; then echo "$each" && return 0; fi ;;
    esac
  done
  die "an image is built by docker, podman or buildah, and none of them runs here (Debian: apt install buildah)"
}

# image_build FORM TAG FORMAT [FLAG...]: builds it and prints its ID. FORMAT is oci or docker, for podman and buildah: they keep the health
# check in docker's only, and there beside an ID of their own. Nothing of this build's time or place is in an OCI image, so that the same
# sources give the same digest.
image_build() {
  local engine id form="--build-arg=FORM=$1" tag=$2 format=$3
  shift 3
  engine=$(image_engine) || exit 1
  id=$(mktemp "${TMPDIR:-/tmp}/keyturn.XXXXXX")
  case "$engine" in
    docker)
      quietly "building the image with docker" env SOURCE_DATE_EPOCH=0 docker buildx build "$form" --tag "$tag" --iidfile "$id" "$@" \
        --output "type=docker,rewrite-timestamp=true" "${root:?}"
      ;;
    podman) quietly "building the image with podman" podman build --format "$format" --timestamp 0 "$form" --tag "$tag" --iidfile "$id" "$@" "$root" ;;
    # With chroot isolation it needs nothing of the kernel that a container would not give it.
    buildah)
      quietly "building the image with buildah" env "BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}" \
        buildah bud --format "$format" --timestamp 0 --layers "$form" --tag "$tag" --iidfile "$id" "$@" "$root"
      ;;
  esac || die "the image could not be built"
  cat "$id"
  echo
  rm -f "$id"
}
