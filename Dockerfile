# syntax=docker/dockerfile:1

# The image for amd64 and arm64, cross-compiled: nothing of it is emulated, and the last stage runs nothing.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --push --sbom=true --provenance=mode=max \
#     --build-arg GATE_COMMIT="$(git rev-parse HEAD)" \
#     --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
#     --tag registry.example/istio-ca-gate:0.1.0 .
#
# For one machine, `docker build -t registry.example/istio-ca-gate:0.1.0 .` is enough.
#
# The project's own checks do not build this image: where they run there is no container engine. What it runs,
# .ci/release, they can run: two builds in two folders gave the same file. Build it once before you rely on it.
#
# Base images are named by tag, which may come to mean another image. To have exactly the ones that you have looked at,
# put their digests behind the tags (`FROM …:nonroot@sha256:…`); the one of all platforms is told by
#
#   docker buildx imagetools inspect --format '{{.Manifest.Digest}}' gcr.io/distroless/static-debian12:nonroot

# zig, as the C compiler and linker. It is a program of its own, and needs no Python once it is unpacked.
FROM --platform=$BUILDPLATFORM python:3.14-slim-bookworm AS zig
COPY .ci/requirements.txt /requirements.txt
RUN pip install --no-cache-dir --no-compile --require-hashes --target /opt/zig --requirement /requirements.txt

FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-bookworm AS build
RUN cargo install --locked cargo-auditable@0.7.7 \
    && rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl
COPY --from=zig /opt/zig /opt/zig
ENV PATH=/opt/zig/bin:/opt/zig/ziglang:$PATH
WORKDIR /src
COPY . .
# For `--version`: .git is not copied. It may be left out.
ARG GATE_COMMIT
# BuildKit takes it for the dates in the image, too.
ARG SOURCE_DATE_EPOCH=0
ARG TARGETARCH
RUN case "$TARGETARCH" in \
        amd64) target=x86_64-unknown-linux-musl ;; \
        arm64) target=aarch64-unknown-linux-musl ;; \
        *) echo "no build for $TARGETARCH" >&2; exit 1 ;; \
    esac \
    && .ci/release "$target" /out

# No shell, no libc, no package manager: CA certificates, for a Vault whose certificate is from a public CA, and an
# entry for the user.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/istio-ca-gate /usr/local/bin/istio-ca-gate
# Any user without rights will do; the manifests name this one, too.
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["/usr/local/bin/istio-ca-gate"]
CMD ["serve"]
